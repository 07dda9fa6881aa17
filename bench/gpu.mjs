// node bench/gpu.mjs [--dtypes bf16,fp16,f32] [--rounds N] [--quick]: the cuda engine's step at
// several sizes and in several situations, its operations, and what the card can do at most
// (gpu_torch.py: a copy and the plain product in PyTorch). Needs dist/ (npm run build). The table
// is kept in bench/results/gpu.{md,json}; a quick one is not.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { OperationBench } from "../dist/bench/operations.js";
import { median } from "../dist/bench/statistics.js";
import { StepBench } from "../dist/bench/step.js";
import { tableMarkdown, tableText } from "../dist/bench/table.js";
import { shardOf } from "../dist/bench/workload.js";
import { createCudaEngine } from "../dist/engine/cuda/index.js";
import { tiedStart } from "../dist/sae/init.js";
import { machine } from "./machine.mjs";

const SHAPE = { d: 768, n: 32768, k: 32, auxk: 256 };
const UNIFORM = { auxk: 0, deadEvery: 0, skewed: false };
/** In the order of the table. Skewed: 20 latents on in half of the rows. */
const CASES = [
  { name: "no AuxK", batch: 16384, ...UNIFORM },
  { name: "auxk 256, none dead", batch: 16384, ...UNIFORM, auxk: 256 },
  { name: "auxk 256, 512 dead", batch: 16384, ...UNIFORM, auxk: 256, deadEvery: 64 },
  { name: "auxk 256, 8192 dead", batch: 16384, ...UNIFORM, auxk: 256, deadEvery: 4 },
  { name: "no AuxK, skewed rows", batch: 16384, ...UNIFORM, skewed: true },
  { name: "no AuxK", batch: 4096, ...UNIFORM },
  { name: "no AuxK", batch: 131072, ...UNIFORM, most: 5 },
];

const { values: asked } = parseArgs({
  options: {
    dtypes: { type: "string", default: "bf16,fp16,f32" },
    rounds: { type: "string", default: "5" },
    quick: { type: "boolean", default: false },
    operations: { type: "string", default: "16384" },
  },
});
const rounds = Number(asked.rounds);
const began = performance.now();
const progress = (what) =>
  process.stderr.write(`${((performance.now() - began) / 1000).toFixed(0).padStart(4)} s  ${what}\n`);
const python = process.env.SAETTA_BENCH_PYTHON || "python3";

/** MiB in use on the first card, by everybody. */
function memoryUsed() {
  try {
    return Number(
      execFileSync("nvidia-smi", ["--query-gpu=memory.used", "--format=csv,noheader,nounits"], {
        encoding: "utf8",
      }).split("\n")[0],
    );
  } catch {
    return Number.NaN;
  }
}

/** { copy: bytes/s, product: FLOP/s by dtype } or { why }. */
function ceilings() {
  const script = fileURLToPath(new URL("gpu_torch.py", import.meta.url));
  const { status, stdout, stderr } = spawnSync(python, [script, "16384", String(SHAPE.n), String(SHAPE.d)], {
    encoding: "utf8",
  });
  if (status === 0) return JSON.parse(stdout);
  return { why: `no ceilings: ${python}: ${stderr?.trim().split("\n").at(-1) ?? "cannot be run"}` };
}

const start = tiedStart(shardOf(SHAPE).dims, 0);
const limits = ceilings();
progress(`ceilings ${JSON.stringify(limits)}`);
const stepRows = [];
const operationTables = [];
const raw = [];
for (const dtype of asked.dtypes.split(",")) {
  for (const batch of [...new Set(CASES.map((each) => each.batch))]) {
    const engine = await createCudaEngine({ dtype });
    const before = memoryUsed();
    const bench = new StepBench(engine, SHAPE, batch, start);
    for (const each of CASES.filter((one) => one.batch === batch)) {
      const { name, auxk } = each;
      bench.enter(auxk, each);
      const wanted = each.deadEvery > 0 ? SHAPE.n / each.deadEvery : 0;
      // The first runs as it is, the second is recorded; the room for the dead follows some steps
      // later.
      for (let i = 0; i < 12; i++) {
        const { dead } = await bench.step();
        if (dead !== wanted) throw new Error(`${dtype}, ${name}: ${dead} latents dead, not ${wanted}`);
      }
      const share = await bench.heavyShare();
      if (share > 0.4 !== each.skewed)
        throw new Error(`${dtype}, ${name}: the least of the heavy latents is on in ${share} of the rows`);
      const count = each.most ?? 40;
      const times = [];
      for (let round = 0; round < rounds; round++) times.push(await bench.steps(count));
      const ms = median(times);
      const memory = memoryUsed() - before;
      progress(
        `${dtype} ${batch} ${name}: ${ms.toFixed(3)} ms, ${((batch / ms) * 1e-3).toFixed(2)} M rows/s, ${memory} MiB`,
      );
      stepRows.push([dtype, String(batch), name, ms.toFixed(3), ((batch / ms) * 1e-3).toFixed(2), String(memory)]);
      raw.push({ dtype, batch, name, times, memory });
    }
    await engine.close();
  }
  if (asked.operations !== "0") {
    const batch = Number(asked.operations);
    const engine = await createCudaEngine({ dtype });
    const work = new OperationBench(engine, SHAPE, batch, start);
    const found = new Map(work.operations.map(({ name }) => [name, []]));
    for (let round = 0; round < 3; round++) {
      await work.enter();
      for (const operation of work.operations) found.get(operation.name).push((await work.time(operation)).ms);
    }
    const rows = work.operations.map(({ name, bound, work: amount }) => {
      const ms = median(found.get(name));
      const rate =
        amount === 0
          ? ""
          : bound === "product"
            ? `${(amount / ms / 1e9).toFixed(0)} TFLOP/s`
            : `${(amount / ms / 1e6).toFixed(0)} GB/s`;
      raw.push({ dtype, batch, operation: name, times: found.get(name) });
      return [name, ms.toFixed(3), rate];
    });
    operationTables.push({ title: `Operations, ${dtype}, ${batch} rows`, columns: ["", "ms", "rate"], rows });
    await engine.close();
  }
}
const found = {
  ...machine(),
  card: limits.card,
  limits,
  command: `node bench/gpu.mjs ${process.argv.slice(2).join(" ")}`.trim(),
};
const tables = [
  { title: "The whole step", columns: ["", "rows", "", "ms", "M rows/s", "MiB"], rows: stepRows },
  ...operationTables,
];
const heading = [
  `${limits.card ?? "unknown card"}; ${found.processor}, ${found.system}`,
  `d ${SHAPE.d}, n ${SHAPE.n}, k ${SHAPE.k}; saetta ${found.saetta}, Node ${found.node}; ${found.date} UTC: ${found.command}`,
  limits.why ??
    `the card, by PyTorch ${limits.torch}: copy ${limits.copy_gbs} GB/s read and written, product bf16 ${limits.product_bf16} TFLOP/s, fp16 ${limits.product_fp16}, f32 ${limits.product_f32} (tf32 off)`,
];
console.log([heading.join("\n"), ...tables.map(tableText)].join("\n\n"));
if (!asked.quick) {
  const folder = new URL("results/", import.meta.url);
  mkdirSync(folder, { recursive: true });
  writeFileSync(new URL("gpu.json", folder), `${JSON.stringify({ ...found, raw })}\n`);
  writeFileSync(
    new URL("gpu.md", folder),
    `# The cuda engine, measured\n\n${heading.map((line) => `- ${line}`).join("\n")}\n\n${tables.map(tableMarkdown).join("\n\n")}\n`,
  );
}
