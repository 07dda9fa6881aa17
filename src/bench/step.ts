/** The time of the whole training step, as `train` runs it, on rows of noise. */

import type { Shape } from "../engine/engine.ts";
import { type EngineName, selectEngine } from "../engine/select.ts";
import { allocState, startParams } from "../train/state.ts";
import { createTrainStep } from "../train/step.ts";
import { bytesOf } from "../util/bytes.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { PURPOSE, Rng } from "../util/rng.ts";

export interface StepOptions {
  readonly shape: Shape;
  readonly batch: number;
  /** How long to count; at least MIN_STEPS steps are. Default 6. */
  readonly seconds?: number | undefined;
  readonly engine?: EngineName | undefined;
  readonly threads?: number | undefined;
  readonly onNote?: ((note: string) => void) | undefined;
}

export interface StepTime {
  readonly shape: Shape;
  readonly batch: number;
  readonly engine: string;
  readonly steps: number;
  /** Medians over the counted steps. */
  readonly millisecondsPerStep: number;
  readonly rowsPerSecond: number;
  /** CPU time over wall time: about 1 in a run whose two threads shared one processor. */
  readonly cpuPerWall: number;
}

const WARM_UP = 2;
const MIN_STEPS = 5;

/** Every fourth latent starts dead and, with rows of noise and so small a learning rate, most stay so. */
const HYPER = {
  lr: 1e-5,
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

/** Times steps of `batch` rows that are in the engine's memory already. Throws UsageError when k is more than n, SaettaError when the engine cannot run the shape. */
export async function timeStep({ shape, batch, seconds = 6, engine: name = "auto", threads, onNote }: StepOptions): Promise<StepTime> {
  if (shape.k > shape.n)
    throw new UsageError(`--k ${shape.k} is more than the ${shape.n} latents`, { mend: "lower --k or raise --latents" });
  await using engine = await selectEngine(name, { threads, onNote });
  const refusal = engine.refuses(shape);
  if (refusal !== undefined) throw new SaettaError(`the ${engine.name} engine cannot run this: ${refusal}`, { mend: "lower --latents" });
  const { d, n } = shape;
  const state = allocState(engine, shape, false);
  startParams(engine, state.params, shape, 0, new Float64Array(d));
  engine.write(state.age, bytesOf(Uint32Array.from({ length: n }, (_, j) => (j % 4 === 0 ? 2 * HYPER.deadAfter : 0))));
  const rng = new Rng(0, PURPOSE.synthetic, 3);
  const raw = engine.alloc("f32", [batch, d]);
  engine.write(raw, bytesOf(Float32Array.from({ length: batch * d }, () => rng.uniform() - 0.5)));
  const rows = Uint32Array.from({ length: batch }, (_, row) => row);
  const step = createTrainStep(engine, shape, batch);
  const one = async (): Promise<number> => {
    const began = performance.now();
    step.run(state, raw, rows, { ...HYPER, rows: batch }, false);
    await engine.read(step.step.bad);
    return performance.now() - began;
  };
  for (let i = 0; i < WARM_UP; i++) await one();
  const times: number[] = [];
  const cpu = process.cpuUsage();
  const began = performance.now();
  while (times.length < MIN_STEPS || performance.now() - began < seconds * 1000) times.push(await one());
  const used = process.cpuUsage(cpu);
  const median = times.sort((a, b) => a - b)[times.length >> 1];
  return {
    shape,
    batch,
    engine: engine.description,
    steps: times.length,
    millisecondsPerStep: median,
    rowsPerSecond: (batch / median) * 1000,
    cpuPerWall: (used.user + used.system) / 1000 / (performance.now() - began),
  };
}
