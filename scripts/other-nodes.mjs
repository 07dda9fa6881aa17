// The core of the test suite under other Nodes: node scripts/other-nodes.mjs [22 24 26]. Each comes
// from npm's package of Node for this machine into a temporary folder. Where it cannot be had, that
// is said, and nothing has failed.

import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The newest release with long support. */
const NEWEST = "26";
const asked = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), "saetta-nodes-"));
let failed = false;
try {
  for (const version of asked.length > 0 ? asked : [NEWEST]) {
    const node = fetched(version);
    if (node === undefined) continue;
    const said = execFileSync(node, ["--version"], { encoding: "utf8" }).trim();
    console.log(`the core of the suite under Node ${said}`);
    const tests = ["node_modules/vitest/vitest.mjs", "run", "--project", "together"];
    for (const words of [["dist/cli.js", "doctor"], tests]) {
      const { status } = spawnSync(node, words, { stdio: "inherit" });
      failed ||= status !== 0;
    }
  }
} finally {
  rmSync(folder, { recursive: true });
}
process.exitCode = failed ? 1 : 0;

/** The path of this version's node; undefined where npm has none for this machine. */
function fetched(version) {
  const name = `node-${process.platform}-${process.arch}@${version}`;
  const to = join(folder, version);
  try {
    execFileSync("npm", ["pack", "--silent", "--pack-destination", folder, name], { stdio: "pipe" });
    const archive = readdirSync(folder).find((each) => each.endsWith(".tgz"));
    execFileSync("mkdir", [to]);
    execFileSync("tar", ["-xzf", join(folder, archive), "-C", to, "--strip-components", "1"]);
    rmSync(join(folder, archive));
    return join(to, "bin", "node");
  } catch (error) {
    console.log(`Node ${version} is not tried: ${name} cannot be had (${String(error.message).split("\n")[0]})`);
    return undefined;
  }
}
