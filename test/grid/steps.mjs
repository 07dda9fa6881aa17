// A hundred training steps of a small autoencoder on rows that all ranks draw, each rank on its part. Kept of every step: what was selected, and the losses.

import { partOf, rowsOfReplica } from "../../dist/train/part.js";
import { readFindings } from "../../dist/train/report.js";
import { allocState, startParams } from "../../dist/train/state.js";
import { createTrainStep } from "../../dist/train/step.js";
import { bytesOf, float32Of, float64Of, uint32Of } from "../../dist/util/bytes.js";
import { Rng } from "../../dist/util/rng.js";

const STEPS = 100;
const SPOILED = 60;
const [D, B, ROWS] = [12, 24, 600];
const WHOLE = { d: D, n: 48, k: 4, auxk: 6 };
const HYPER = {
  lr: 3e-3,
  beta1: 0.9,
  beta2: 0.999,
  eps: 1e-8,
  clip: 0.5,
  emaDecay: 0.9,
  mseScale: 0.7,
  auxCoef: 1 / 8,
  rows: B,
  deadAfter: 60,
  firedAbove: 1e-3,
};

/** Sparse sums of some directions: some latents die, others live. */
function rows() {
  const rng = new Rng(11);
  const directions = Float64Array.from({ length: 16 * D }, () => rng.normal());
  const values = new Float32Array(ROWS * D);
  for (let row = 0; row < ROWS; row++) {
    for (let pick = 0; pick < 2; pick++) {
      const [which, strength] = [rng.below(16), 0.5 + rng.uniform()];
      for (let i = 0; i < D; i++) values[row * D + i] += strength * directions[which * D + i];
    }
    for (let i = 0; i < D; i++) values[row * D + i] += 0.1 * rng.normal() + 0.5;
  }
  return values;
}

export async function steps(engine, collective) {
  const { grid } = collective;
  const part = partOf(WHOLE, grid);
  const state = allocState(engine, part.shape, true);
  startParams(engine, state.params, part.shape, 3, new Float64Array(D).fill(0.4), part.firstLatent);
  const raw = engine.alloc("f32", [ROWS, D]);
  engine.write(raw, bytesOf(rows()));
  const { first, end } = rowsOfReplica(grid, B);
  const ops = createTrainStep(engine, part.shape, end - first, false, undefined, part);
  const order = new Rng(17);
  const kept = [];
  for (let step = 0; step < STEPS; step++) {
    const index = Uint32Array.from({ length: B }, () => order.below(ROWS));
    // A weight of one rank's is not finite for one step, which none may take.
    const spoiled = step === SPOILED && grid.rank === grid.shards - 1 ? await engine.read(state.params.encoder) : undefined;
    if (spoiled)
      engine.write(state.params.encoder, bytesOf(engine.real === "f64" ? Float64Array.of(Number.NaN) : Float32Array.of(Number.NaN)));
    ops.run(state, raw, index.subarray(first, end), HYPER, true);
    if (spoiled) engine.write(state.params.encoder, spoiled);
    const selected = async ({ codes }) => {
      const { latent, value } = engine.pairs(codes);
      const [latents, bytes] = [uint32Of(await engine.read(latent)), await engine.read(value)];
      const values = engine.real === "f64" ? float64Of(bytes) : float32Of(bytes);
      return [...latents].flatMap((j, slot) => (values[slot] > 0 ? [[first + Math.floor(slot / codes.k), part.firstLatent + j]] : []));
    };
    const findings = await readFindings(engine, ops, state, HYPER.mseScale, HYPER.auxCoef, B, collective);
    kept.push({ ...findings, live: await selected(ops.live), dead_pairs: await selected(ops.dead) });
  }
  ops.close();
  return kept;
}
