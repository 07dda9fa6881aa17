// Held-out FVU against L0 of every architecture, and how near JumpReLU's L0 ends to its target, on
// activations: whole runs of `saetta train`, one after the other. What is there already is not
// trained again, so that it may be stopped and started.
// Usage: npm run build && node bench/curves.mjs ACTS FOLDER [--tokens 3M] [--latents 2048]
// [--engine cuda]
// Writes bench/results/curves.md and docs/images/curves.svg from all runs that FOLDER holds.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { decimals, figure, tableMarkdown } from "../dist/bench/table.js";
import { drawLines } from "./lines.mjs";
import { machine } from "./machine.mjs";

const { values: asked, positionals } = parseArgs({
  options: {
    tokens: { type: "string", default: "3M" },
    latents: { type: "string", default: "2048" },
    engine: { type: "string", default: "auto" },
    draw: { type: "boolean", default: false },
  },
  allowPositionals: true,
});
if (positionals.length !== 2) {
  console.error("usage: node bench/curves.mjs ACTS FOLDER [--tokens 3M] [--latents 2048] [--engine cuda] [--draw]");
  process.exit(2);
}
const [acts, folder] = positionals.map((path) => resolve(path));
process.chdir(fileURLToPath(new URL("..", import.meta.url)));
mkdirSync(folder, { recursive: true });

const of = (architecture, sparsity) => (architecture === "jumprelu" ? ["--target-l0", sparsity] : ["--k", sparsity]);
const SEEDS = [0, 1, 2];
/** What the issue of each line is answered with first. */
const PLAN = [
  ...[32].flatMap((k) => SEEDS.flatMap((seed) => ["batchtopk", "topk"].map((name) => [name, k, seed]))),
  ...[50, 20, 100].flatMap((l0) => SEEDS.map((seed) => ["jumprelu", l0, seed])),
  ...[
    ["matryoshka", 32, 0],
    ["jumprelu", 32, 0],
  ],
  ...[64, 16, 128].flatMap((k) => ["topk", "batchtopk", "matryoshka"].map((name) => [name, k, 0])),
];

function trained([architecture, sparsity, seed]) {
  const name = `${architecture}-${sparsity}-${seed}`;
  const kept = join(folder, `${name}.json`);
  if (existsSync(kept)) return JSON.parse(readFileSync(kept, "utf8"));
  if (asked.draw) return undefined;
  const run = join(folder, name);
  rmSync(run, { recursive: true, force: true });
  const words = ["train", acts, "--architecture", architecture, ...of(architecture, String(sparsity))];
  words.push("--latents", asked.latents, "--batch", "1024", "--tokens", asked.tokens, "--seed", String(seed));
  words.push("--engine", asked.engine);
  const { status, stdout } = spawnSync(process.execPath, ["dist/cli.js", ...words, "--out", run, "--json"], {
    stdio: ["ignore", "pipe", "ignore"],
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`${words.join(" ")} ended with ${status}`);
  const { report, tokens } = JSON.parse(stdout);
  const result = { architecture, sparsity, seed, tokens, latents: Number(asked.latents), ...report };
  writeFileSync(`${kept}.part`, JSON.stringify(result));
  renameSync(`${kept}.part`, kept);
  rmSync(run, { recursive: true });
  console.log(`${name}: held-out FVU ${figure(report.holdout_fvu)}, L0 ${decimals(report.holdout_l0 ?? report.l0)}`);
  return result;
}

const results = PLAN.map(trained)
  .filter((one) => one !== undefined)
  .toSorted((a, b) => a.architecture.localeCompare(b.architecture) || a.sparsity - b.sparsity || a.seed - b.seed);
const l0Of = (one) => one.holdout_l0 ?? one.l0;
const rows = results.map((one) => [
  one.architecture === "jumprelu" ? `jumprelu, target L0 ${one.sparsity}` : `${one.architecture}, k ${one.sparsity}`,
  String(one.seed),
  decimals(l0Of(one)),
  one.architecture === "jumprelu" ? `${decimals(100 * (l0Of(one) / one.sparsity - 1))} %` : "",
  one.holdout_fvu.toFixed(4),
  String(one.dead),
]);
const { processor, saetta, date } = machine();
const report = {
  title: "Held-out FVU against L0",
  columns: ["", "seed", "held-out L0", "off target", "held-out FVU", "dead"],
  rows,
  notes: [
    `${asked.latents} latents, ${asked.tokens} rows of ${basename(acts)} in batches of 1,024, everything else by default`,
  ],
};
const lines = [`- ${processor}; saetta ${saetta}; ${date} UTC: node bench/curves.mjs`];
writeFileSync(
  "bench/results/curves.md",
  `# Curves of the architectures\n\n${lines.join("\n")}\n\n${tableMarkdown(report)}\n`,
);
const pointsOf = (name) =>
  results
    .filter(({ architecture }) => architecture === name)
    .toSorted((a, b) => l0Of(a) - l0Of(b))
    .map((one) => [l0Of(one), one.holdout_fvu]);
writeFileSync(
  "docs/images/curves.svg",
  drawLines({
    title: "Held-out FVU against L0",
    lines: [...new Set(results.map(({ architecture }) => architecture))].map((name) => ({
      name,
      points: pointsOf(name),
    })),
    x: { title: "L0 of held-out rows", ticks: [15, 20, 30, 50, 70, 100, 150] },
    y: { title: "held-out FVU", ticks: [0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2] },
    dots: true,
    legend: 130,
  }),
);
