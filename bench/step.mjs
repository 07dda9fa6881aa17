// The whole training step of the cpu engine, as `saetta train` runs it, on random rows: median rate over the counted steps, and CPU time over wall time (a run in
// which two threads got only one processor shows about 1). Usage: npm run bench [-- --threads N]
import { cpus, release } from "node:os";
import { createCpuEngine } from "../dist/engine/cpu/index.js";
import { allocState, startParams } from "../dist/train/state.js";
import { createTrainStep } from "../dist/train/step.js";

const SHAPES = [
  { d: 256, n: 2048, k: 32, auxk: 0, batch: 1024 },
  { d: 256, n: 2048, k: 32, auxk: 256, batch: 1024 },
  { d: 768, n: 32768, k: 32, auxk: 0, batch: 1024 },
  { d: 768, n: 32768, k: 32, auxk: 256, batch: 1024 },
];
const SECONDS = 6;

const threads = process.argv.includes("--threads") ? Number(process.argv[process.argv.indexOf("--threads") + 1]) : undefined;
console.log(`${cpus()[0].model} x ${cpus().length}, Linux ${release()}, Node ${process.versions.node}`);
for (const shape of SHAPES) {
  const engine = await createCpuEngine(threads === undefined ? {} : { threads });
  const state = allocState(engine, shape, false);
  startParams(engine, state.params, shape, 0, new Float64Array(shape.d));
  const rows = Float32Array.from({ length: shape.batch * shape.d }, () => Math.random() - 0.5);
  const raw = engine.alloc("f32", [shape.batch, shape.d]);
  engine.write(raw, new Uint8Array(rows.buffer));
  const index = Uint32Array.from({ length: shape.batch }, (_, row) => row);
  const step = createTrainStep(engine, shape, shape.batch);
  // Every fourth latent starts dead, and with rows of noise most stay so.
  engine.write(state.age, new Uint8Array(Uint32Array.from({ length: shape.n }, (_, j) => (j % 4 === 0 ? 2e9 : 0)).buffer));
  const hyper = {
    lr: 1e-5,
    rows: shape.batch,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    clip: 0,
    emaDecay: 0,
    mseScale: 1,
    auxCoef: 1 / 32,
    deadAfter: 1e9,
    firedAbove: 1e-3,
  };
  const times = [];
  let cpu = process.cpuUsage();
  let began = performance.now();
  for (let i = 0; times.length < 5 || performance.now() - began < SECONDS * 1000; i++) {
    const at = performance.now();
    step.run(state, raw, index, hyper, false);
    await engine.read(step.step.bad);
    if (i === 1) {
      cpu = process.cpuUsage();
      began = performance.now();
    }
    if (i > 1) times.push(performance.now() - at);
  }
  const used = process.cpuUsage(cpu);
  const ratio = (used.user + used.system) / 1000 / (performance.now() - began);
  const median = times.sort((a, b) => a - b)[times.length >> 1];
  const rate = Math.round((shape.batch / median) * 1000).toLocaleString("en-US");
  const { d, n, k, auxk, batch } = shape;
  console.log(
    `d ${d}, n ${n}, k ${k}, auxk ${auxk}, B ${batch}: ${median.toFixed(1)} ms a step, ${rate} tokens/s, CPU/wall ${ratio.toFixed(2)} (${times.length} steps)`,
  );
  await engine[Symbol.asyncDispose]();
}
