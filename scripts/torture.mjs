// The long tests of what must survive: kills, power cuts, damage, full disks, races, leaks. Needs
// dist/.
//
//   node scripts/torture.mjs [--only NAME] [--seed N] [test files ...]
//
// Every failure prints its NAME and its seed N, which repeat it.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

const { values, positionals } = parseArgs({
  options: { only: { type: "string" }, seed: { type: "string" } },
  allowPositionals: true,
});
if (values.seed !== undefined && !/^\d+$/.test(values.seed)) {
  console.error(`torture: --seed must be a whole number, but is "${values.seed}"`);
  process.exit(2);
}

const first = Math.floor(Math.random() * 2 ** 32);
console.log(values.seed === undefined ? `seeds from ${first} on` : `seed ${values.seed}`);
const env = { ...process.env, SAETTA_TORTURE: "long", SAETTA_TORTURE_FIRST: String(first) };
if (values.seed !== undefined) env.SAETTA_TORTURE_SEED = values.seed;
if (values.only !== undefined) env.SAETTA_TORTURE_ONLY = values.only;
const files = positionals.length > 0 ? positionals : ["test/torture"];
const { status } = spawnSync(
  process.execPath,
  ["node_modules/vitest/vitest.mjs", "run", "--no-file-parallelism", "--reporter=verbose", ...files],
  {
    stdio: "inherit",
    env,
  },
);
process.exitCode = status ?? 1;
