// Twenty training steps of each architecture, small, on rows that all ranks draw, each rank on its
// part. Kept: the metrics of every step, and what the parameters are at the end.

import { rowsOfReplica } from "../../dist/collective/collective.js";
import { architectureNamed, rulesOf } from "../../dist/sae/architectures/index.js";
import { paramNames } from "../../dist/sae/description.js";
import { autoencoderDims, transcoderDims } from "../../dist/sae/dims.js";
import { NO_NORMALIZATION } from "../../dist/sae/math.js";
import { PARAMS, paramEntries } from "../../dist/sae/params.js";
import { rankShard } from "../../dist/train/rank-shard.js";
import { readStepMetrics } from "../../dist/train/report.js";
import { allocState, readReals, shareState, writeReals } from "../../dist/train/state.js";
import { createTrainStep } from "../../dist/train/step.js";
import { readHeldOut, Validator } from "../../dist/train/validate.js";
import { bytesOf } from "../../dist/util/bytes.js";
import { Rng } from "../../dist/util/rng.js";

const [D, OUT, N, ROWS, B, COUNT] = [12, 7, 48, 200, 24, 20];
const HYPER = {
  ...{ lr: 3e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, clip: 0.5, emaDecay: 0.9, mseScale: 0.7, auxCoef: 1 / 8 },
  ...{ deadAfter: 60, firedAbove: 1e-3, rows: B },
};

/** Name, architecture, its options, and of a transcoder whether there is a skip connection. */
const RUNS = [
  ["topk skip transcoder", "topk", { k: 4, auxk: 6 }, { skip: true }],
  ["topk, multi-TopK", "topk", { k: 4, auxk: 0, multiTopk: 0.25 }],
  ["multi-TopK transcoder", "topk", { k: 4, auxk: 0, multiTopk: 0.25 }, { skip: false }],
  [
    "matryoshka",
    "matryoshka",
    { k: 4, auxk: 6, prefixes: [0.25, 0.5, 1], prefixWeights: [2, 1, 1], prefixSelection: "topk" },
  ],
  [
    "matryoshka skip transcoder",
    "matryoshka",
    { k: 4, auxk: 6, prefixes: [5, 30], prefixSelection: "topk" },
    { skip: true },
  ],
  ["matryoshka by batchtopk", "matryoshka", { k: 3.5, auxk: 6, prefixes: [0.25, 1] }],
  ...["step", "tanh", "quadratic"].map((sparsityPenalty) => [
    `jumprelu, ${sparsityPenalty}`,
    "jumprelu",
    { targetL0: 6, sparsityPenalty, deadPenalty: 0.05, tanhScale: 2, bandwidth: 0.4, sparsityCoef: 0.3 },
  ]),
  ["jumprelu transcoder", "jumprelu", { targetL0: 6, deadPenalty: 0.05, bandwidth: 0.4 }, { skip: false }],
];

/** The same numbers for every rank that holds them, drawn for the whole autoencoder. */
function start(engine, state, whole, { dims, firstLatent }) {
  for (const [name, { shape, sharded }, tensor] of paramEntries(state.params)) {
    const rng = new Rng(5, Object.keys(PARAMS).indexOf(name));
    const size = shape(whole).reduce((a, b) => a * b, 1);
    const all = Float64Array.from({ length: size }, () => 0.4 * rng.normal());
    if (name === "latentBias") for (let j = 3; j < all.length; j += 7) all[j] = -6; // These are dead.
    if (name === "threshold") all.set(all.map((value) => 0.3 + 0.1 * value));
    if (name === "cut") all[0] = 0.5;
    if (name === "sparsity") all.set([1, 0]);
    const each = size / whole.n;
    writeReals(engine, tensor, sharded ? all.subarray(firstLatent * each, (firstLatent + dims.n) * each) : all);
  }
}

/** What the hold-out's evaluation finds on rows that all ranks draw. */
async function evaluated(engine, collective, shard, state) {
  const rng = new Rng(12);
  const rows = bytesOf(Float32Array.from({ length: B * D }, () => rng.normal()));
  const source = {
    ...{ description: "", paths: [""], dIn: D, rows: B, dtype: "f32", grain: 1, origin: {} },
    read: async (first, count, into) => into.set(rows.subarray(first * 4 * D, (first + count) * 4 * D)),
  };
  const hyper = { ...HYPER, lr: 0, rows: 0 };
  const held = await readHeldOut(source, [{ first: 0, count: B }], "stop");
  const validator = new Validator(engine, shard, hyper, held);
  const found = await validator.run(state.params, collective);
  validator.close();
  return found;
}

async function run(engine, collective, [name, architecture, options, transcoder]) {
  const { grid } = collective;
  const kind = architectureNamed(architecture);
  const all = { ...kind.defaults, ...options };
  const spec = kind.spec(all, N);
  const whole = transcoder ? transcoderDims(D, N, OUT) : autoencoderDims(D, N);
  const skip = transcoder?.skip ?? false;
  const shard = rankShard(whole, rulesOf(spec), grid);
  const state = allocState(engine, shard.dims, paramNames({ spec, skip }), true);
  start(engine, state, whole, shard);
  shareState(engine, state, shard);
  const rng = new Rng(11);
  const width = transcoder ? D + OUT : D;
  const raw = engine.alloc("f32", [ROWS, width]);
  engine.write(raw, bytesOf(Float32Array.from({ length: ROWS * width }, () => rng.normal())));
  const { first, end } = rowsOfReplica(grid, B);
  const target = transcoder && NO_NORMALIZATION;
  const ops = createTrainStep(engine, { shard, rows: end - first, most: Math.ceil(B / grid.replicas), target, skip });
  const steps = [];
  for (let step = 0; step < COUNT; step++) {
    const hyper = {
      ...HYPER,
      ...kind.hyper?.(all, spec),
      ...kind.stepHyper?.(all, { step, steps: COUNT, rows: B }),
      unitRows: transcoder ? 0 : 1,
    };
    const index = Uint32Array.from({ length: B }, () => rng.below(ROWS)).subarray(first, end);
    ops.run(state, raw, index, hyper, true);
    while ((await ops.verdict()).full) ops.again(state, hyper, true);
    steps.push(await readStepMetrics(engine, ops, state, hyper, shard.prefixes, collective));
  }
  ops.close();
  const heldOut = target === undefined ? await evaluated(engine, collective, shard, state) : {};
  engine.complete(state);
  const params = {};
  for (const [each, { sharded }, tensor] of paramEntries(state.params))
    params[each] = { sharded, values: Array.from(await readReals(engine, tensor)) };
  return [name, { steps, heldOut, params }];
}

export async function architectures(engine, collective) {
  const found = {};
  for (const each of RUNS) {
    const [name, kept] = await run(engine, collective, each);
    found[name] = kept;
  }
  return found;
}
