// Trains many small steps through the library, with logs, evaluations and checkpoints, and prints
// memory and open descriptors as JSON: [{ step, rss, heap, files }]. node --expose-gc leak.mjs
// ENGINE STEPS FOLDER
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fromRows, train } from "../../dist/index.js";

const [engine, steps, folder] = process.argv.slice(2);
const [D, BATCH, ROWS] = [8, 8, 512];
const values = Float32Array.from({ length: ROWS * D }, (_, i) => Math.sin(i * i + 1) + 1);
const rows = fromRows(
  function* () {
    for (let at = 0; at < values.length; at += 64 * D) yield values.subarray(at, at + 64 * D);
  },
  { dIn: D, rows: ROWS },
);
const run = await train(rows, {
  engine,
  threads: 1,
  latents: 16,
  k: 2,
  auxk: 4,
  batch: BATCH,
  tokens: BATCH * Number(steps),
  deadTokens: 64,
  ema: 0.9,
  clip: 1,
  logEvery: 1,
  evalEvery: 50,
  checkpointEvery: 200,
  keep: 2,
  statisticsRows: 256,
  out: join(folder, "run"),
});
const samples = [];
for await (const { step } of run) {
  if (step < (samples.at(-1)?.step ?? 0) + 250) continue;
  globalThis.gc();
  const { rss, heapUsed, external } = process.memoryUsage();
  samples.push({ step, rss, heap: heapUsed + external, files: readdirSync("/proc/self/fd").length });
}
await (await run.finished).sae.close();
await rows.close();
process.stdout.write(JSON.stringify(samples));
