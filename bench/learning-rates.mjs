// Held-out FVU of grids of learning rates over widths, latents, k and budgets, next to that of the
// default rate: what the default (src/learning-rate.ts) was fitted to. Whole runs of `saetta train`
// and `saetta eval`. What is in bench/results/learning-rates.json is not trained again.
// Usage: npm run build && node bench/learning-rates.mjs DATA [--engine cuda] [--only CASE] [--draw]
// DATA: a folder with NAME-train.h5 and NAME-val.h5 for each name in CASES, as
// bench/learning_rates_data.py writes them. Writes bench/results/learning-rates.{json,md} and
// docs/images/learning-rates.svg.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { defaultLearningRate } from "../dist/learning-rate.js";
import { drawLines } from "./lines.mjs";

const { values: asked, positionals } = parseArgs({
  options: { engine: { type: "string", default: "auto" }, only: { type: "string" }, draw: { type: "boolean" } },
  allowPositionals: true,
});
if (positionals.length !== (asked.draw ? 0 : 1)) {
  console.error("usage: node bench/learning-rates.mjs DATA [--engine cuda] [--only CASE], or --draw");
  process.exit(2);
}
process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const KEPT = "bench/results/learning-rates.json";

const RATES = [4e-4, 5.7e-4, 8e-4, 1.13e-3, 1.6e-3, 2.26e-3, 3.2e-3, 4.5e-3, 6.4e-3];
const WIDTHS = { ex3: 256, ex1: 256, z768: 768, z64: 64 };
/** Data, latents, k, rows to train on, batch where it is not the default. */
const CASES = [
  ["ex3", 1024, 32, "300k"],
  ["ex3", 2048, 32, "3M"],
  ["ex3", 2048, 16, "12M"],
  ["ex3", 4096, 16, "1M"],
  ["ex3", 4096, 128, "12M"],
  ["ex3", 8192, 32, "3M"],
  ["ex3", 8192, 32, "24.6M", "4096"],
  ["ex3", 8192, 32, "100M", "4096"],
  ["ex3", 16384, 64, "24M"],
  ["ex3", 32768, 32, "12M"],
  ["ex3", 65536, 32, "12M", "4096"],
  ["ex1", 8192, 32, "12M"],
  ["ex1", 16384, 64, "12M"],
  ["z64", 2048, 32, "6M"],
  ["z64", 4096, 16, "12M"],
  ["z768", 8192, 64, "12M"],
  ["z768", 16384, 32, "12M"],
  ["z768", 32768, 32, "6M"],
];

const results = existsSync(KEPT) ? JSON.parse(readFileSync(KEPT, "utf8")) : [];
const nameOf = ([data, latents, k, tokens]) => `${data} n ${latents} k ${k} rows ${tokens}`;
const saetta = (words) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["dist/cli.js", ...words], { encoding: "utf8" });
  if (status !== 0) throw new Error(`saetta ${words.join(" ")}: ${stderr}`);
  return JSON.parse(stdout);
};

function measure(one, lr) {
  const [data, latents, k, tokens, batch] = one;
  const folder = resolve(positionals[0]);
  const scratch = mkdtempSync(join(tmpdir(), "saetta-rates-"));
  try {
    const words = ["train", join(folder, `${data}-train.h5`), "--out", join(scratch, "run"), "--json"];
    words.push("--latents", latents, "--k", k, "--tokens", tokens, "--holdout", "0", "--engine", asked.engine);
    if (batch !== undefined) words.push("--batch", batch);
    const { report } = saetta([...words, "--lr", lr].map(String));
    const { metrics } = saetta(["eval", join(scratch, "run"), join(folder, `${data}-val.h5`), "--json"]);
    return { case: nameOf(one), lr, fvu: metrics.fvu, dead: report.dead };
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

for (const one of asked.draw ? [] : CASES) {
  if (asked.only !== undefined && !nameOf(one).includes(asked.only)) continue;
  for (const lr of RATES) {
    if (results.some((result) => result.case === nameOf(one) && result.lr === lr)) continue;
    results.push(measure(one, lr));
    console.log(JSON.stringify(results.at(-1)));
    writeFileSync(KEPT, `[\n${results.map((result) => JSON.stringify(result)).join(",\n")}\n]\n`);
  }
}

/** log(FVU) at a rate, in a straight line between the measured ones in log(rate). */
function fvuAt(points, lr) {
  const next = points.findIndex((point) => point.lr >= lr);
  if (next <= 0) return points.at(next)?.fvu;
  const [a, b] = [points[next - 1], points[next]];
  const part = Math.log(lr / a.lr) / Math.log(b.lr / a.lr);
  return Math.exp((1 - part) * Math.log(a.fvu) + part * Math.log(b.fvu));
}

const lines = [];
const table = CASES.flatMap((one) => {
  const [data, latents, k] = one;
  const points = results.filter((result) => result.case === nameOf(one)).toSorted((a, b) => a.lr - b.lr);
  if (points.length < 2) return [];
  const best = points.reduce((a, b) => (b.fvu < a.fvu ? b : a));
  const lr = defaultLearningRate({ dIn: WIDTHS[data], latents, active: k, isTranscoder: false });
  const published = 2e-4 / Math.sqrt(latents / 16384);
  lines.push({ name: nameOf(one), points: points.map((point) => [point.lr / lr, point.fvu / best.fvu]) });
  const above = (rate) => `${(100 * (fvuAt(points, rate) / best.fvu - 1)).toFixed(1)} %`;
  return [
    `| ${nameOf(one)} | ${best.lr.toExponential(1)} | ${best.fvu.toFixed(4)} | ${best.dead} | ${lr.toExponential(2)} | ${above(lr)} | ${published < points[0].lr ? "more than " : ""}${above(published)} |`,
  ];
});
writeFileSync(
  "bench/results/learning-rates.md",
  [
    "# Learning rates",
    "",
    "Best of each grid, and how much higher the held-out FVU is at the default rate and at 2e-4 / sqrt(latents / 16384), read between the",
    "measured ones. NVIDIA H200, bf16; ex1 and ex3: blocks 1 and 3 of the example model, d 256; z64, z768: Zipf dictionaries, d 64 and 768.",
    "`node bench/learning-rates.mjs DATA --engine cuda`; every run is in learning-rates.json.",
    "",
    "| case | best rate | FVU | dead there | default rate | FVU above the best | of the published rule |",
    "| --- | --- | --- | --- | --- | --- | --- |",
    ...table,
    "",
  ].join("\n"),
);
writeFileSync(
  "docs/images/learning-rates.svg",
  drawLines({
    title: "Held-out FVU of each case over its best, against the learning rate over the default",
    lines,
    x: { title: "learning rate / default learning rate", ticks: [0.1, 0.2, 0.5, 1, 2, 5] },
    y: { title: "held-out FVU / best of the grid", ticks: [1, 1.1, 1.2, 1.5, 2] },
  }),
);
