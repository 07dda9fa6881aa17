/**
 * npm run test:fuzz [-- --format NAME[,NAME] --seed FIRST --count N --seconds S]: mutations of
 * every format, 20,000 each, at most 2 s of processor time each. Prints a line per failure, with
 * its seed; exits 1 when there is one.
 */

import { parseArgs } from "node:util";
import { FORMATS, formatNamed } from "./formats/index.ts";
import { fuzz } from "./run.ts";

const { values } = parseArgs({
  options: {
    format: { type: "string" },
    seed: { type: "string", default: "0" },
    count: { type: "string", default: "20000" },
    seconds: { type: "string", default: "2" },
  },
});
const names = values.format?.split(",") ?? FORMATS.map(({ name }) => name);
for (const name of names) formatNamed(name);
const [first, count] = [values.seed, values.count].map(Number) as [number, number];
if (!(Number.isSafeInteger(first) && first >= 0 && Number.isSafeInteger(count) && count > 0))
  throw new Error("--seed and --count are whole numbers");

let failed = 0;
for (const format of names) {
  const began = performance.now();
  const { failures, accepted } = await fuzz({
    format,
    first,
    count,
    seconds: Number(values.seconds),
    onFailure: ({ number, what, words }) =>
      console.log(`${format} --seed ${number}: ${what}${words === "" ? "" : `\n    (${words})`}`),
  });
  failed += failures.length;
  console.log(
    `${format}: ${count} mutations from seed ${first}, ${failures.length} failures, ${accepted} accepted, ${((performance.now() - began) / 1000).toFixed(0)} s`,
  );
}
if (failed > 0) {
  console.log(`${failed} failures; one again: npm run test:fuzz -- --format NAME --seed SEED --count 1`);
  process.exitCode = 1;
}
