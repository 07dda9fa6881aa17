// npm run bench [-- --quick] [--threads N] [--rounds N]: the cpu engine's step, product and
// operations beside PyTorch, oneDNN, OpenBLAS and what the machine can do. Everything is measured
// in turn, in rounds, and the table shows medians; a measurement in which the threads had not a CPU
// each is thrown away and done again. A whole run takes some five minutes and 8 GB, and is kept in
// bench/results/; a quick one takes two rounds and is not kept.
import { mkdirSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { OperationBench } from "../dist/bench/operations.js";
import { LEAST_SHARE, Series } from "../dist/bench/statistics.js";
import { StepBench } from "../dist/bench/step.js";
import { tableMarkdown, tableText } from "../dist/bench/table.js";
import { shardOf } from "../dist/bench/workload.js";
import { cpuPaths, createCpuEngine } from "../dist/engine/cpu/index.js";
import { tiedStart } from "../dist/sae/init.js";
import { SaettaError } from "../dist/util/errors.js";
import { machine } from "./machine.mjs";
import { operationTable, productTable, setOf, stepTable } from "./report.mjs";
import { startCeilings, startTorch } from "./rivals.mjs";

const SHAPE = { d: 768, n: 32768, k: 32, auxk: 256 };
const BATCH = 1024;
const STEPS_A_ROUND = 2;
/** On a machine so busy that most is thrown away, no round begins after as many seconds. */
const LAST_ROUND_AT = 270;
/** What the engine can be asked to compute in; those that a path has not are left out. */
const DTYPES = ["f32", "bf16"];
const HAS_BF16 = /bf16|amx/;
/** What is compared within a few percent stands beside each other. */
const SITUATIONS = [
  { name: "no AuxK", auxk: 0, deadEvery: 0, skewed: false },
  { name: "auxk 256, none dead", auxk: 256, deadEvery: 0, skewed: false },
  { name: "auxk 256, 25 % dead", auxk: 256, deadEvery: 4, skewed: false },
  { name: "no AuxK, skewed rows", auxk: 0, deadEvery: 0, skewed: true },
];
const RIVALS = { "no AuxK": "none", "auxk 256, 25 % dead": "256" };

const { values: asked } = parseArgs({
  options: { quick: { type: "boolean", default: false }, threads: { type: "string" }, rounds: { type: "string" } },
});
const quick = asked.quick === true;
const threads = asked.threads === undefined ? availableParallelism() : Number(asked.threads);
const rounds = asked.rounds === undefined ? (quick ? 2 : 7) : Number(asked.rounds);
if (!(Number.isInteger(rounds) && rounds >= 1 && Number.isInteger(threads) && threads >= 1)) {
  console.error("bench: --threads and --rounds are whole numbers from 1");
  process.exit(2);
}

const notes = [];
const began = performance.now();
const progress = (what) =>
  process.stderr.write(`${((performance.now() - began) / 1000).toFixed(0).padStart(4)} s  ${what}\n`);

/**
 * One engine a code path and dtype, the slowest path first; `$SAETTA_CPU` names the only one.
 * Portable is left out where there are others.
 */
async function openEngines(start) {
  const engines = [];
  const possible = await cpuPaths();
  const wanted = possible.filter((name) =>
    process.env.SAETTA_CPU ? name === process.env.SAETTA_CPU : name !== "portable",
  );
  for (const path of wanted.length > 0 ? wanted : possible) {
    for (const dtype of DTYPES) {
      // In float32 the paths that have bf16 are avx512.
      if (dtype === "f32" && HAS_BF16.test(path)) continue;
      let engine;
      try {
        engine = await createCpuEngine({ threads, path, dtype });
      } catch (error) {
        if (!(error instanceof SaettaError)) throw error;
        notes.push(`${path} ${dtype} is left out: ${error.message}`);
        continue;
      }
      if (!engine.description.includes(dtype) && dtype !== "f32") {
        notes.push(`${path} ${dtype} is left out: this engine computes in f32 only ("${engine.description}")`);
        await engine.close();
        continue;
      }
      const steps = new Map(SITUATIONS.map(({ name }) => [name, { series: new Series(threads), rival: RIVALS[name] }]));
      const bench = new StepBench(engine, SHAPE, BATCH, start);
      const work = new OperationBench(engine, SHAPE, BATCH, start, bench.state);
      // What is not bound by arithmetic or memory may well leave a thread without work.
      const operations = new Map(
        work.operations.map(({ name, bound }) => [name, { series: new Series(bound === "neither" ? 0 : threads) }]),
      );
      engines.push({
        path,
        dtype,
        engine,
        bench,
        steps,
        work,
        operations,
      });
    }
  }
  return engines;
}

/**
 * Two steps of a situation, after one that does not count; throws when the situation is not what it
 * is called.
 */
async function stepsOf({ path, dtype, bench, steps }, situation) {
  bench.enter(situation.auxk, situation);
  await bench.step();
  const { series } = steps.get(situation.name);
  const wanted = situation.deadEvery > 0 ? SHAPE.n / situation.deadEvery : 0;
  for (let i = 0; i < STEPS_A_ROUND; i++) {
    await series.take(async () => {
      const sample = await bench.step();
      if (sample.dead !== wanted)
        throw new Error(`${path} ${dtype}, ${situation.name}: ${sample.dead} latents dead, not ${wanted}`);
      return sample;
    });
  }
  const share = await bench.heavyShare();
  if (share > 0.4 !== situation.skewed)
    throw new Error(
      `${path} ${dtype}, ${situation.name}: the least of the heavy latents is on in ${share} of the rows`,
    );
  steps.get(situation.name).heavyShare = share;
}

async function operationsOf({ work, operations }) {
  await work.enter();
  for (const operation of work.operations) await operations.get(operation.name).series.take(() => work.time(operation));
}

/**
 * What is asked of ceilings.cc, by the paths that there are: its words, and on how many threads it
 * runs.
 */
function ceilingsFor(paths) {
  const sets = [...new Set(paths.map(setOf))];
  const memory = ["copy", "update", "read"].flatMap((kind) =>
    [...new Set([1, threads])].map((count) => [`${kind} ${count}`, count]),
  );
  const arithmetic = [
    ...sets.map((set) => `fma ${set}`),
    "bf16 avx512",
    "bf16 amx",
    "onednn f32",
    "onednn bf16",
    "openblas",
  ];
  return [...arithmetic.map((words) => [words, threads]), ...memory];
}

async function measureCeilings(child, ceilings) {
  for (const ceiling of ceilings.values()) {
    if (ceiling.why !== undefined) continue;
    await ceiling.series.take(async () => {
      const { ms, cpu_ms: cpuMs, work, why, how } = await child.ask(ceiling.words);
      Object.assign(ceiling, { work, why, how });
      return why === undefined ? { ms, cpuMs } : undefined;
    });
  }
}

const start = tiedStart(shardOf(SHAPE).dims, 0);
const torch = await startTorch(SHAPE, BATCH, threads);
const limits = await startCeilings(SHAPE, BATCH, threads);
for (const { why } of [torch, limits]) if (why !== undefined) notes.push(why);
progress("ready: engines");
const engines = await openEngines(start);
const rivals = new Map(Object.entries(RIVALS).map(([name, words]) => [name, { words, series: new Series(threads) }]));
const ceilings = new Map(
  ceilingsFor([...new Set(engines.map(({ path }) => path))]).map(([words, count]) => [
    words,
    { words, series: new Series(count) },
  ]),
);
let round = 0;
for (; round < rounds && (round === 0 || performance.now() - began < 1000 * LAST_ROUND_AT); round++) {
  progress(`round ${round + 1} of ${rounds}`);
  for (const engine of engines) {
    for (const situation of SITUATIONS) await stepsOf(engine, situation);
    await operationsOf(engine);
    if (limits.child !== undefined && engine === engines[0]) await measureCeilings(limits.child, ceilings);
  }
  if (torch.child !== undefined) {
    for (const { words, series } of rivals.values()) {
      await series.take(async () => {
        const { ms, cpu_ms: cpuMs, dead } = await torch.child.ask(words);
        if (dead !== SHAPE.n / 4) throw new Error(`PyTorch: ${dead} latents dead, not ${SHAPE.n / 4}`);
        return { ms, cpuMs };
      });
    }
  }
}
for (const { child } of [torch, limits]) child?.close();
for (const { engine } of engines) await engine.close();
for (const { words, why } of ceilings.values()) if (why !== undefined) notes.push(`${words}: ${why}`);

const named = [
  ...engines.flatMap(({ path, dtype, steps }) =>
    [...steps].map(([name, step]) => [`${path} ${dtype}, ${name}`, step.series]),
  ),
  ...engines.flatMap(({ path, dtype, operations }) =>
    [...operations].map(([name, { series }]) => [`${path} ${dtype}, ${name}`, series]),
  ),
  ...[...rivals].map(([name, { series }]) => [`PyTorch, ${name}`, series]),
  ...[...ceilings].map(([name, { series }]) => [name, series]),
];
const thrown = named.reduce((sum, [, series]) => sum + series.thrown, 0);
const kept = named.reduce((sum, [, series]) => sum + series.samples.length, 0);
const without = named.filter(([, series]) => series.thrown > 0 && series.samples.length === 0).map(([name]) => name);
if (without.length > 0) notes.push(`no measurement counted, the machine was too busy: ${without.join("; ")}`);
notes.push(
  `${round} rounds in ${((performance.now() - began) / 1000).toFixed(0)} s, everything in turn; medians; of ${kept + thrown} measurements ${thrown} were thrown away, in which the threads had less than ${LEAST_SHARE} of a CPU each`,
);
const found = {
  ...machine(),
  command: `npm run bench${process.argv.length > 2 ? ` -- ${process.argv.slice(2).join(" ")}` : ""}`,
  threads,
  shape: SHAPE,
  batch: BATCH,
  torch: torch.child?.hello,
  libraries: limits.child?.hello,
  notes,
};
const tables = [
  stepTable(engines, rivals, BATCH),
  productTable(engines, ceilings, found),
  ...engines.map((engine) => operationTable(engine, ceilings, threads)),
];
const heading = [
  `${found.processor} (${found.features.join(", ")}), ${threads} threads of ${found.cpus} CPUs, ${found.memory}, ${found.system}`,
  `d ${SHAPE.d}, n ${SHAPE.n}, k ${SHAPE.k}, batch ${BATCH}; saetta ${found.saetta}, Node ${found.node}, ${found.compiler}`,
  ...(found.torch === undefined
    ? []
    : [
        `${found.torch.name} with ${found.torch.blas}: the listing's step without clipping, ${found.torch.threads} threads`,
      ]),
  `${found.date} UTC: ${found.command}`,
];
console.log([heading.join("\n"), ...tables.map(tableText), notes.map((note) => `- ${note}`).join("\n")].join("\n\n"));

if (!quick) {
  const series = ({ series: { samples, thrown: count }, ...rest }) => ({ ...rest, samples, thrown: count });
  const raw = {
    ...found,
    steps: engines.flatMap(({ path, dtype, engine, steps }) =>
      [...steps].map(([name, step]) => ({ path, dtype, engine: engine.description, name, ...series(step) })),
    ),
    torchSteps: [...rivals].map(([name, rival]) => ({ name, ...series(rival) })),
    ceilings: [...ceilings.values()].map(series),
    operations: engines.flatMap(({ path, dtype, operations }) =>
      [...operations].map(([name, operation]) => ({ path, dtype, name, ...series(operation) })),
    ),
  };
  const folder = new URL("results/", import.meta.url);
  mkdirSync(folder, { recursive: true });
  writeFileSync(new URL("cpu.json", folder), `${JSON.stringify(raw, rounded)}\n`);
  const lines = ["# The cpu engine, measured", "", ...heading.map((line) => `- ${line}`)];
  const body = tables.map((table) => `\n${tableMarkdown(table)}`);
  writeFileSync(
    new URL("cpu.md", folder),
    `${[...lines, ...body, "", ...notes.map((note) => `- ${note}`)].join("\n")}\n`,
  );
}

/** Milliseconds to four decimals: the rest is noise. */
function rounded(_key, value) {
  return typeof value === "number" && !Number.isInteger(value) ? Number(value.toFixed(4)) : value;
}
