// node bench/architectures.mjs [--engine cpu|cuda] [--dtype bf16|f32] [--batch N] [--latents N]
// [--d N] [--rounds N] [--only NAMES]: the step of each architecture next to TopK's, in turn. Needs
// dist/ (npm run build). The table is kept in bench/results/architectures-ENGINE.{md,json} unless
// --only is given.
import { mkdirSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { ArchitectureBench } from "../dist/bench/architectures.js";
import { median } from "../dist/bench/statistics.js";
import { selectEngine } from "../dist/engine/select.js";
import { machine } from "./machine.mjs";

const TIMED = [
  { name: "topk", architecture: "topk" },
  { name: "batchtopk", architecture: "batchtopk", goal: { cuda: 0.92, cpu: 0.9 } },
  { name: "matryoshka, 5 prefixes", architecture: "matryoshka", goal: { cuda: 0.85, cpu: 0.8 } },
  { name: "jumprelu, L0 32", architecture: "jumprelu", goal: { cuda: 0.85, cpu: 0.8 } },
  { name: "jumprelu, L0 256", architecture: "jumprelu", options: { targetL0: 256 }, goal: { cuda: 0.5, cpu: 0.5 } },
  { name: "topk skip transcoder", architecture: "topk", transcoder: true, goal: { cuda: 0.9, cpu: 0.85 } },
];

const { values: asked } = parseArgs({
  options: {
    engine: { type: "string", default: "cpu" },
    dtype: { type: "string", default: "auto" },
    batch: { type: "string" },
    latents: { type: "string", default: "32768" },
    d: { type: "string", default: "768" },
    rounds: { type: "string", default: "5" },
    only: { type: "string" },
  },
});
const onCard = asked.engine === "cuda";
const sizes = { d: Number(asked.d), n: Number(asked.latents), batch: Number(asked.batch ?? (onCard ? 16384 : 1024)) };
const count = onCard ? 20 : 2;
const engine = await selectEngine(asked.engine, { dtype: asked.dtype });
const benches = [];
for (const timed of TIMED) {
  if (asked.only !== undefined && timed.name !== "topk" && !timed.name.includes(asked.only)) continue;
  try {
    benches.push({ timed, bench: await ArchitectureBench.create(engine, timed, sizes), ms: [] });
  } catch (error) {
    process.stderr.write(`${timed.name}: ${error.message}\n`);
  }
}
for (let round = 0; round < Number(asked.rounds); round++)
  for (const each of benches) each.ms.push(await each.bench.steps(count));
const base = median(benches[0].ms);
const rows = benches.map(({ timed, bench, ms }) => ({
  name: timed.name,
  ms: median(ms),
  rows_per_second: Math.round(bench.rate(median(ms))),
  part_of_topk: base / median(ms),
  goal: timed.goal?.[asked.engine],
}));
await engine.close();
const title = `Steps of the architectures: ${engine.description}, d ${sizes.d}, n ${sizes.n}, batch ${sizes.batch}, k 32, no AuxK`;
const lines = [
  `# ${title}`,
  "",
  "Medians of rounds taken in turn (`node bench/architectures.mjs`).",
  "",
  "| architecture | ms per step | rows/s | part of TopK's rate | goal |",
  "| --- | --- | --- | --- | --- |",
  ...rows.map(
    (row) =>
      `| ${row.name} | ${row.ms.toFixed(3)} | ${row.rows_per_second.toLocaleString("en")} | ${row.part_of_topk.toFixed(3)} | ${row.goal ?? ""} |`,
  ),
];
process.stdout.write(`${lines.join("\n")}\n`);
if (asked.only === undefined) {
  const folder = new URL("results/", import.meta.url);
  mkdirSync(folder, { recursive: true });
  writeFileSync(new URL(`architectures-${asked.engine}.md`, folder), `${lines.join("\n")}\n`);
  writeFileSync(
    new URL(`architectures-${asked.engine}.json`, folder),
    `${JSON.stringify({ machine: machine(), sizes, rows }, undefined, 2)}\n`,
  );
}
