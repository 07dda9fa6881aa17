// A hundred training steps (unless otherwise asked for) of a small autoencoder on rows that all
// ranks draw, each rank on its part. Kept of every step: what was selected, and the losses.

import { rowsOfReplica } from "../../dist/collective/collective.js";
import { paramsOf, rulesOf } from "../../dist/sae/architectures/index.js";
import { autoencoderDims } from "../../dist/sae/dims.js";
import { rankShard } from "../../dist/train/rank-shard.js";
import { readStepMetrics } from "../../dist/train/report.js";
import { allocState, shareState, startParams } from "../../dist/train/state.js";
import { createTrainStep } from "../../dist/train/step.js";
import { bytesOf, float32Of, float64Of, uint32Of } from "../../dist/util/bytes.js";
import { Rng } from "../../dist/util/rng.js";

const SPOILED = 60;
const [D, ROWS] = [12, 600];
/** What of the runs can be asked for otherwise. */
const USUAL = { n: 48, k: 4, auxk: 6, B: 24, clip: 0.5, count: 100 };
const HYPER = {
  lr: 3e-3,
  beta1: 0.9,
  beta2: 0.999,
  eps: 1e-8,
  emaDecay: 0.9,
  mseScale: 0.7,
  auxCoef: 1 / 8,
  deadAfter: 60,
  firedAbove: 1e-3,
};

/** Latents that are never on and whose decoder rows are 0, so that they are drawn anew. */
const WITHOUT_ROW = [20, 40];

/**
 * The start, of which only the first rank of each shard knows, and pre-bias rank 0 alone; the
 * others are told.
 */
function start(engine, state, shard) {
  const { grid, dims, firstLatent } = shard;
  startParams(engine, state.params, dims, 3, new Float64Array(D).fill(0.4), firstLatent);
  const reals = (count, value) =>
    bytesOf(engine.real === "f64" ? new Float64Array(count).fill(value) : new Float32Array(count).fill(value));
  const size = engine.real === "f64" ? 8 : 4;
  for (const latent of WITHOUT_ROW.map((each) => each - firstLatent).filter((each) => each >= 0 && each < dims.n)) {
    engine.write(state.params.decoder, reals(D, 0), latent * D * size);
    engine.write(state.params.latentBias, reals(1, -50), latent * size);
  }
  if (grid.replica > 0) engine.write(state.params.encoder, reals(dims.n * D, Number.NaN));
  if (grid.rank > 0) engine.write(state.params.preBias, reals(D, 7));
  if (grid.replica > 0) engine.write(state.age, bytesOf(new Uint32Array(dims.n).fill(9)));
  shareState(engine, state, shard);
}

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

export async function steps(engine, collective, asked) {
  const { B, clip, count, ...sizes } = { ...USUAL, ...asked };
  const { grid } = collective;
  const spec = { architecture: "topk", k: sizes.k, auxk: sizes.auxk };
  const shard = rankShard(autoencoderDims(D, sizes.n), rulesOf(spec), grid);
  const state = allocState(engine, shard.dims, paramsOf(spec), true);
  start(engine, state, shard);
  const raw = engine.alloc("f32", [ROWS, D]);
  engine.write(raw, bytesOf(rows()));
  const { first, end } = rowsOfReplica(grid, B);
  const ops = createTrainStep(engine, { shard, rows: end - first, most: Math.ceil(B / grid.replicas) });
  const order = new Rng(17);
  const kept = [];
  for (let step = 0; step < count; step++) {
    const index = Uint32Array.from({ length: B }, () => order.below(ROWS));
    // A weight of one rank's is not finite for one step, which none may take. Replicas may give it
    // to each other, as they do with weights.
    if (step === SPOILED) engine.complete(state);
    const before = step === SPOILED ? await engine.read(state.params.encoder) : undefined;
    if (before && grid.rank === grid.shards - 1)
      engine.write(
        state.params.encoder,
        bytesOf(engine.real === "f64" ? Float64Array.of(Number.NaN) : Float32Array.of(Number.NaN)),
      );
    ops.run(state, raw, index.subarray(first, end), { ...HYPER, clip, rows: B }, clip > 0);
    if (before) engine.write(state.params.encoder, before);
    const selected = async ({ codes }) => {
      const { latent, value } = engine.pairs(codes);
      const [latents, bytes] = [uint32Of(await engine.read(latent)), await engine.read(value)];
      const values = engine.real === "f64" ? float64Of(bytes) : float32Of(bytes);
      return [...latents].flatMap((j, slot) =>
        values[slot] > 0 ? [[first + Math.floor(slot / codes.capacity), shard.firstLatent + j]] : [],
      );
    };
    const findings = await readStepMetrics(engine, ops, state, { ...HYPER, rows: B }, undefined, collective);
    kept.push({ ...findings, live: await selected(ops.live), dead_pairs: await selected(ops.dead) });
  }
  ops.close();
  engine.complete(state);
  const bytes = await engine.read(state.params.decoder);
  const decoder = Array.from(engine.real === "f64" ? float64Of(bytes) : float32Of(bytes));
  return { steps: kept, decoder, firstLatent: shard.firstLatent, withoutRow: WITHOUT_ROW };
}
