// Twenty steps of the published code of SAELens, dictionary_learning and sparsify next to Saetta's:
// the same start, rows, order and options, on a CPU in float32. published.py runs the libraries and
// says which options Saetta gets; this trains Saetta and compares the losses of every step.
// Usage: npm run build && node bench/published.mjs PACKAGES [--engine cpu] [--only WORDS] [--keep]
// PACKAGES: a folder with the package folders sae_lens, dictionary_learning and sparsify;
// $SAETTA_BENCH_PYTHON: a Python with torch, numpy, safetensors, einops and tqdm. --keep writes
// the table into bench/results/. Takes some two minutes.
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { tableMarkdown } from "../dist/bench/table.js";
import { flagOf } from "../dist/config.js";
import { fromRows, openActivations, pairSources, train } from "../dist/index.js";
import { machine } from "./machine.mjs";
import { PYTHON } from "./rivals.mjs";

/** What is allowed where nothing differs. */
const GOAL = 1e-4;
/** The options of every case, or what the table's notes say. */
const IN_NOTES = [
  "latents",
  "batch",
  "tokens",
  "lr",
  "decay",
  "eps",
  "firedThreshold",
  "k",
  "auxk",
  "mseScale",
  "clip",
];
/** What no latent reaches in the run. */
const NEVER = 1e7;

const { values: asked, positionals } = parseArgs({
  allowPositionals: true,
  options: { engine: { type: "string" }, only: { type: "string" }, keep: { type: "boolean" } },
});
if (positionals.length !== 1) {
  console.error("bench: give the folder of the packages: node bench/published.mjs PACKAGES");
  process.exit(2);
}
const packages = resolve(positionals[0]);
const { engine = "cpu", only, keep = false } = asked;
process.chdir(fileURLToPath(new URL("..", import.meta.url)));

const folder = mkdtempSync(join(tmpdir(), "saetta-published-"));
const at = (name) => join(folder, name);
try {
  const env = { ...process.env, ...(only === undefined ? {} : { ONLY: only }) };
  execFileSync(PYTHON, ["bench/published.py", packages, folder], { env, stdio: ["ignore", "ignore", "pipe"] });
  const { versions, torch, shape, cases } = JSON.parse(readFileSync(at("cases.json"), "utf8"));
  const rows = [];
  for (const [i, each] of cases.entries()) {
    rows.push(line(each, await losses(each, shape), cases[i - 1]?.ours));
    console.log(rows.at(-1).join(" | "));
  }
  const found = machine();
  const report = {
    title: `${shape.steps} steps, d ${shape.d}, n ${shape.n}, k ${shape.k}, B ${shape.batch}, learning rate ${shape.lr}`,
    columns: [
      "library and class",
      "told",
      "saetta train",
      "reconstruction",
      "total",
      "threshold",
      "changed in the library",
    ],
    rows,
    notes: [
      "numbers: the largest relative difference of any of the steps; above 1e-4 in bold. The line below a case has the library with one difference taken out, and only the flags that change",
      `all: \`--no-shuffle --holdout 0 --normalize none --eps 1e-8 --fired-threshold 0 --auxk ${shape.d / 2}\`, and \`--clip 1 --decay 0\` but for sparsify, where they are 0 and 1; no latent dies where no --dead-tokens is named`,
      `\`--mse-scale\` is d; Matryoshka d G (SAELens, which sums) and d / G (dictionary_learning, whose weights are 1 / G and which takes the mean again), with G prefixes; sparsify 1 / the mean variance of a batch's elements`,
      "reconstruction is SAELens' and dictionary_learning's sum over d and mean over rows: d times Saetta's mse, or its loss without AuxK and sparsity loss; sparsify's is the FVU. The pre-activation loss of JumpReLU is in the gradients, not in the total",
      "JumpReluTrainer of dictionary_learning does not subtract b_dec: Saetta trains a transcoder from rows to themselves",
    ],
  };
  const heading = [
    `SAELens ${versions.sae_lens}, dictionary_learning ${versions.dictionary_learning}, sparsify ${versions.sparsify}; torch ${torch}, one thread, float32`,
    `saetta ${found.saetta}, engine ${engine}, Node ${found.node}; ${found.processor}`,
    `${found.date} UTC: node bench/published.mjs PACKAGES`,
  ];
  console.log(`\n${heading.join("\n")}\n\n${tableMarkdown(report)}`);
  if (keep) {
    mkdirSync("bench/results", { recursive: true });
    const lines = heading.map((each) => `- ${each}`).join("\n");
    writeFileSync(
      "bench/results/published.md",
      `# Next to the published code\n\n${lines}\n\n${tableMarkdown(report)}\n`,
    );
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** Saetta's losses of every step. */
async function losses({ data, start, ours }, { steps }) {
  const source = await sourceOf(data);
  const found = [];
  try {
    const run = await train(source, {
      ...ours,
      ...{ init: at(start), engine, dtype: "f32", seed: 0, out: at("run") },
      ...{ shuffle: false, holdout: 0, excludeTokens: "none", zeroRows: "keep", normalize: "none" },
      ...{ logEvery: 1, evalEvery: 0, checkpointEvery: 0 },
    });
    for await (const report of run) found.push(report);
    await (await run.finished).sae.close();
  } finally {
    await source.close();
    rmSync(at("run"), { recursive: true, force: true });
  }
  const reported = found.filter(({ loss }) => loss !== undefined);
  if (reported.length !== steps) throw new Error(`${reported.length} steps were reported, not ${steps}`);
  return reported;
}

/** "rows": inputs alone; "pairs": with their targets; "self": rows that are their own targets. */
async function sourceOf(data) {
  const rows = at("rows.safetensors");
  if (data === "rows") return openActivations(rows);
  if (data === "pairs") return openActivations(rows, { target: at("targets.safetensors") });
  const source = await openActivations(rows);
  const bytes = new Uint8Array(source.rows * source.dIn * 4);
  await source.read(0, source.rows, bytes);
  await source.close();
  const values = new Float32Array(bytes.buffer);
  const same = () => fromRows(() => [values], { dIn: source.dIn, rows: source.rows });
  return pairSources(same(), same());
}

/** Reconstruction and total by the library's own definition, from Saetta's metrics. */
function converted({ unit, ours }, report) {
  if (unit === "fvu") {
    const total = report.fvu + (ours.auxk > 0 ? ours.auxkCoef * report.auxk_loss : 0);
    return { reconstruction: report.fvu, total, threshold: report.threshold };
  }
  const added = (ours.auxk > 0 ? ours.auxkCoef * report.auxk_loss : 0) + (report.sparsity_loss ?? 0);
  return { reconstruction: report.loss - added, total: report.loss, threshold: report.threshold };
}

function line(each, reports, before) {
  const ours = reports.map((report) => converted(each, report));
  const worst = (name) => {
    const differences = each.losses.flatMap((theirs, step) =>
      theirs[name] === undefined ? [] : [Math.abs(ours[step][name] - theirs[name]) / Math.abs(theirs[name])],
    );
    return differences.length === 0 ? undefined : Math.max(...differences);
  };
  const word = (name) => {
    const value = worst(name);
    return value === undefined ? "" : value <= GOAL ? value.toExponential(0) : `**${value.toExponential(0)}**`;
  };
  const { library, title, told, why } = each;
  const about = why === null ? [`${library} ${title}`, `\`${told}\``] : ["", ""];
  const numbers = ["reconstruction", "total", "threshold"].map(word);
  const flags = flagsOf(each, before);
  return [...about, flags === "" ? "" : `\`${flags}\``, ...numbers, why ?? ""];
}

/** The flags of `saetta train` that notes do not name; of a run with a change, those it changes. */
function flagsOf({ why, ours }, before) {
  const words = Object.entries(ours).flatMap(([name, value]) => {
    if (IN_NOTES.includes(name) || (name === "deadTokens" && value === NEVER) || (name === "warmup" && value === 0))
      return [];
    if (name === "auxkCoef" && (value === 1 / 32 || ours.auxk === 0)) return [];
    if (why !== null && String(before?.[name]) === String(value)) return [];
    return [value === true ? flagOf(name) : `${flagOf(name)} ${value}`];
  });
  return words.join(" ");
}
