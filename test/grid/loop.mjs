// Steps of the loop on many small windows of a source that counts what is read of it. Kept: the
// losses of the steps, the bytes read and sent, the rows that were passed over, the loss scales,
// the steps that were skipped, and a hash of the weights.

import { createHash } from "node:crypto";
import { ringRows, START } from "../../dist/data/batches.js";
import { lanesFor } from "../../dist/data/lanes.js";
import { RowSet } from "../../dist/data/mask.js";
import { Order } from "../../dist/data/order.js";
import { rulesOf } from "../../dist/sae/architectures/index.js";
import { autoencoderDims } from "../../dist/sae/dims.js";
import { trainLoop } from "../../dist/train/loop.js";
import { rankShard } from "../../dist/train/rank-shard.js";
import { allocState, shareState, startParams } from "../../dist/train/state.js";
import { bytesOf } from "../../dist/util/bytes.js";
import { Rng } from "../../dist/util/rng.js";

const D = 6;
const BATCH = 48;
const ROWS = 9600;
const ROW_BYTES = 4 * D;

/**
 * `nonFinite`: "skip" has rows that are not finite. `scale`: the first loss scale.
 */
export async function loop(engine, collective, { nonFinite = "stop", wire = "f32", scale }) {
  const rng = new Rng(3);
  const values = Float32Array.from({ length: ROWS * D }, () => rng.normal());
  for (let row = 50; nonFinite === "skip" && row < ROWS; row += 499) values[row * D + 1] = Number.NaN;
  const bytes = bytesOf(values);
  let read = 0;
  const source = {
    ...{ description: "rows", paths: ["rows"], dIn: D, rows: ROWS, dtype: "f32", sequence: undefined, grain: 1 },
    origin: {},
    async read(first, count, into) {
      read += count * ROW_BYTES;
      into.set(bytes.subarray(first * ROW_BYTES, (first + count) * ROW_BYTES));
    },
    tokens: undefined,
    locate: (row) => `rows, row ${row}`,
    close: async () => undefined,
  };
  const order = new Order({ rows: ROWS, rowBytes: ROW_BYTES, grain: 1 }, new RowSet(ROWS), {
    ...{ seed: 5, shuffle: true, batch: BATCH, lanes: lanesFor(BATCH) },
    ...{ blockBytes: 8 * ROW_BYTES, windowBytes: 800 * ROW_BYTES },
  });
  const shard = rankShard(autoencoderDims(D, 24), rulesOf({ architecture: "topk", k: 3, auxk: 6 }), collective.grid);
  const state = allocState(engine, shard.dims, ["encoder", "latentBias", "decoder", "preBias"], false);
  startParams(engine, state.params, shard.dims, 1, new Float64Array(D), shard.firstLatent);
  shareState(engine, state, shard);
  const [losses, scales, skips] = [[], [], []];
  let [skipped, last] = [0, undefined];
  await engine.read(state.params.encoder); // until the state is shared
  const sentBefore = engine.sentBytes ?? 0;
  const steps = ROWS / BATCH - 20; // within the first epoch
  const ring = engine.alloc("f32", [ringRows(order), D]);
  await trainLoop({
    plan: {
      engine,
      collective,
      shard,
      source,
      order,
      budget: steps * BATCH,
      config: { batch: BATCH, nonFinite, wire },
    },
    start: {
      state,
      progress: {
        ...{ step: 0, tokens: 0, position: START },
        lossScale: scale && { scale, fitting: 0, overflowed: false },
      },
      hyper: {
        ...{ beta1: 0.9, beta2: 0.999, eps: 1e-8, clip: 1, emaDecay: 0.9, mseScale: 1, auxCoef: 1 / 32 },
        ...{ deadAfter: 3 * BATCH, firedAbove: 1e-3, unitRows: 1 },
      },
      normalization: { kind: "none", factor: 1 },
    },
    schedule: { lr: 3e-3, warmup: 5, decay: 0.3, steps },
    ring,
    observers: [
      {
        ...{ reads: true, holds: false, due: () => true },
        see: ({ progress, metrics, lossScale }) => {
          losses.push(metrics.loss);
          scales.push(lossScale);
          skips.push(metrics.skipped);
          last = progress.lossScale;
          skipped = progress.position.skipped;
        },
      },
    ],
    signal: new AbortController().signal,
  });
  const weights = createHash("sha256");
  for (const name of ["encoder", "latentBias", "decoder", "preBias"])
    weights.update(await engine.read(state.params[name]));
  const sent = (engine.sentBytes ?? 0) - sentBefore;
  return { losses, read, sent, skipped, scales, skips, last, weights: weights.digest("hex") };
}
