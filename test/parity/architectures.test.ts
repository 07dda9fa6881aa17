/**
 * Twenty steps of every architecture and of transcoders, from the same start on the same rows,
 * against plain PyTorch in float64 (make_architecture_fixtures.py): losses, gradients, weights,
 * thresholds, the controller and ages of every step, on the reference engine. A run is given by the
 * library's options, so what they mean is compared too.
 */

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { resolveConfig, specOf, type TrainOptions } from "../../src/config.ts";
import type { Engine, Hyper, Params, State, Tensor } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { unitRows } from "../../src/inference/weights.ts";
import { architectureNamed, paramsOf, rulesOf } from "../../src/sae/architectures/index.ts";
import { autoencoderDims, transcoderDims } from "../../src/sae/dims.ts";
import { NO_NORMALIZATION, squares } from "../../src/sae/math.ts";
import { type ParamName, paramEntries } from "../../src/sae/params.ts";
import { hyperOf } from "../../src/train/plan.ts";
import { rankShard, trainingSelections } from "../../src/train/rank-shard.ts";
import { readStepMetrics } from "../../src/train/report.ts";
import { allocState, readReals, writeReals } from "../../src/train/state.ts";
import { createTrainStep } from "../../src/train/step.ts";
import { bytesOf, float32Of, uint32Of } from "../../src/util/bytes.ts";
import { cpuEngine, whyNoCpu } from "../support/engines.ts";
import { fixture, near } from "./fixtures.ts";

/** Of a tensor: its squares, and its product with cos(0), cos(1), ... */
type Summed = readonly [squares: number, product: number];

interface Step {
  readonly mse: number;
  readonly auxkLoss: number;
  /** Without the pre-activation loss of dead latents. */
  readonly loss: number;
  readonly sparsityLoss: number;
  /** Of each prefix. */
  readonly fvu: readonly number[];
  /** Of multi-TopK: by 4 k latents. */
  readonly wideFvu?: number;
  readonly l0: number;
  readonly dead: number;
  readonly gradNorm: number;
  /** Of all latents together. */
  readonly age: number;
  readonly cut: number;
  readonly multiplier: number;
  readonly smoothed: number;
  readonly gradient: { readonly [N in ParamName]?: Summed };
  readonly weights: { readonly [N in ParamName]?: Summed };
  readonly averages?: { readonly [N in ParamName]?: Summed };
}

interface Run {
  readonly options: TrainOptions;
  readonly thresholds?: readonly [first: number, last: number];
  readonly transcoder?: "zeros" | "random" | "unit";
  readonly steps: readonly Step[];
}

const folder = new URL("fixtures/", import.meta.url);
const { shape, runs } = JSON.parse(readFileSync(new URL("architectures.json", folder), "utf8")) as {
  readonly shape: {
    readonly d: number;
    readonly dOut: number;
    readonly n: number;
    readonly B: number;
    readonly steps: number;
    readonly common: TrainOptions;
  };
  readonly runs: Readonly<Record<string, Run>>;
};
const targets = float32Of(readFileSync(new URL("architectures.bin", folder)));
const { d, n, B } = shape;

/** Inputs, each followed by its target in a transcoder. */
function rowsOf({ transcoder }: Run): Float64Array {
  const data = fixture("data");
  if (transcoder === undefined) return data;
  const width = d + shape.dOut;
  return Float64Array.from({ length: (data.length / d) * width }, (_, at) => {
    const [row, column] = [Math.floor(at / width), at % width];
    return column < d ? data[row * d + column]! : targets[row * shape.dOut + column - d]!;
  });
}

function writeStart(engine: Engine, params: Params, { transcoder, thresholds: [first, last] = [0.1, 0.9] }: Run): void {
  const decoder = fixture("start/decoder");
  const { dOut } = shape;
  const start: { readonly [N in ParamName]?: Float64Array } = {
    encoder: fixture("start/encoder"),
    latentBias: fixture("start/latentBias"),
    decoder:
      transcoder === undefined
        ? decoder
        : Float64Array.from({ length: n * dOut }, (_, at) =>
            transcoder === "zeros" ? 0 : decoder[Math.floor(at / dOut) * d + (at % dOut)]!,
          ),
    preBias: fixture("start/preBias").slice(0, params.preBias.shape[0]),
    threshold: Float64Array.from({ length: n }, (_, j) => first + ((last - first) * j) / (n - 1)),
    sparsity: Float64Array.of(1, 0),
  };
  if (transcoder === "unit") unitRows(start.decoder!, dOut);
  for (const [name, , tensor] of paramEntries(params)) {
    const values = start[name];
    if (values !== undefined) writeReals(engine, tensor, values);
  }
}

/** Relative errors that are allowed. */
interface Tolerance {
  readonly losses: number;
  readonly weights: number;
}

/** Repeats a run. An engine that does not know its rules skips it, with what it says. */
async function repeat(engine: Engine, title: string, run: Run, tolerance: Tolerance, skip: (note: string) => void) {
  const transcodes = run.transcoder !== undefined;
  const asked = { ...shape.common, ...run.options, ...(transcodes ? { target: ["targets"] } : {}) };
  const facts = { dIn: d, rowsPerEpoch: B * shape.steps, ...(transcodes ? { target: ["targets"] } : {}) };
  const config = resolveConfig(asked as TrainOptions, ["inputs"], facts);
  const spec = specOf(config);
  const dims = transcodes ? transcoderDims(d, n, shape.dOut) : autoencoderDims(d, n);
  const names = [...paramsOf(spec), ...(config.skip ? (["skip"] as const) : [])];
  const shard = rankShard(dims, rulesOf(spec));
  const refusal = engine.refuses(dims, trainingSelections(shard));
  if (refusal !== undefined) return skip(refusal);
  const state = allocState(engine, dims, names, config.ema > 0);
  writeStart(engine, state.params, run);

  const rows = rowsOf(run);
  const raw = engine.alloc("f64", [B * shape.steps, rows.length / (B * shape.steps)]);
  engine.write(raw, bytesOf(rows));
  const target = transcodes ? NO_NORMALIZATION : undefined;
  const step = createTrainStep(engine, { shard, rows: B, dense: true, target, skip: config.skip });
  for (const [i, expected] of run.steps.entries()) {
    const where = `${title}, step ${i + 1}`;
    const hyper: Hyper = {
      ...hyperOf(config, shape.common.mseScale as number),
      ...architectureNamed(spec.architecture).stepHyper?.(config, { step: i, steps: shape.steps, rows: B }),
      lr: config.lr,
      rows: B,
    };
    const { sparsity } = state.params;
    const multiplier = sparsity && (await readReals(engine, sparsity))[0]!;
    step.run(
      state,
      raw,
      Uint32Array.from({ length: B }, (_, row) => i * B + row),
      hyper,
      true,
    );
    while ((await step.verdict()).full) step.again(state, hyper, true);
    expect(await step.verdict(), where).toEqual({ bad: false, full: false, overflow: false, stop: false });

    const found = await readStepMetrics(engine, step, state, hyper, shard.prefixes);
    const close = (what: string, actual: number, truth: number) =>
      near(`${where}: ${what}`, [actual], [truth], tolerance.losses);
    close("mse", found.mse, expected.mse);
    close("AuxK loss", found.auxk_loss, expected.auxkLoss);
    close("loss", found.loss, expected.loss);
    if (multiplier !== undefined) {
      close("sparsity coefficient", found.sparsity_coef!, hyper.sparsity! * multiplier);
      // Next to the size of the coefficient, which passes through 0.
      const scale = hyper.sparsity!;
      near(`${where}: sparsity loss`, [found.sparsity_loss!, scale], [expected.sparsityLoss!, scale], tolerance.losses);
    }
    near(`${where}: FVU`, found.prefix_fvu ?? [found.fvu], expected.fvu, tolerance.losses);
    if (expected.wideFvu !== undefined) close("FVU of 4 k latents", found.multi_topk_fvu!, expected.wideFvu);
    near(`${where}: gradient norm`, [found.grad_norm], [expected.gradNorm], tolerance.weights);
    expect([found.l0, found.dead], where).toEqual([expected.l0, expected.dead]);
    expect(
      uint32Of(await engine.read(state.age)).reduce((a, b) => a + b, 0),
      where,
    ).toBe(expected.age);
    await compareState(engine, state, expected, where, tolerance.weights);
    for (const [name, truth] of Object.entries(expected.gradient))
      await nearSums(
        engine,
        step.grads[name as ParamName & keyof typeof step.grads]!,
        truth,
        `${where}: d ${name}`,
        tolerance.weights,
      );
  }
}

async function compareState(engine: Engine, state: State, expected: Step, where: string, tolerance: number) {
  for (const [group, of] of [
    [expected.weights, state.params],
    [expected.averages ?? {}, state.ema],
  ] as const) {
    for (const [name, truth] of Object.entries(group))
      await nearSums(engine, of![name as ParamName]!, truth, `${where}: ${name}`, tolerance);
  }
  for (const params of [state.params, ...(state.ema === undefined ? [] : [state.ema])]) {
    if (params.cut !== undefined) near(`${where}: cut`, await readReals(engine, params.cut), [expected.cut], tolerance);
    if (params.sparsity !== undefined) {
      const truth = [expected.multiplier, expected.smoothed];
      near(`${where}: controller`, await readReals(engine, params.sparsity), truth, tolerance);
    }
  }
}

async function nearSums(engine: Engine, tensor: Tensor, truth: Summed, what: string, tolerance: number) {
  const values = Float64Array.from(await readReals(engine, tensor));
  const product = values.reduce((sum, value, i) => sum + value * Math.cos(i), 0);
  near(`squares of ${what}`, [squares(values)], [truth[0]], tolerance);
  // Terms of either sign: what they add up to is rounded as their length is.
  near(what, [product, Math.sqrt(squares(values))], [truth[1], Math.sqrt(truth[0])], tolerance);
}

describe("parity of all architectures with PyTorch", () => {
  const all = Object.entries(runs);
  const steps = (architecture: string) =>
    all.filter(([title]) => title.includes(architecture)).map(([, { steps }]) => steps);

  it("has runs in which latents die, clipping is at work, and thresholds and coefficients move", () => {
    expect(all.length).toBeGreaterThanOrEqual(21);
    for (const name of ["topk", "batchtopk", "matryoshka", "jumprelu", "transcoder"])
      expect(
        steps(name).some((each) => each.some(({ dead }) => dead > 3)),
        name,
      ).toBe(true);
    expect(all.filter(([, { options, steps }]) => steps[5]!.gradNorm > (options.clip ?? 0)).length).toBeGreaterThan(3);
    expect(steps("jumprelu").some((each) => each.at(-1)!.multiplier !== 1)).toBe(true);
    for (const each of steps("jumprelu"))
      expect(each.every(({ gradient: { threshold } }) => threshold![0] > 0)).toBe(true);
  });

  it.each(all)("reference: %s", async (title, run) => {
    await using engine = createReferenceEngine();
    await repeat(engine, title, run, { losses: 1e-9, weights: 1e-9 }, expect.fail);
  });

  const noCpu = whyNoCpu();
  if (noCpu !== undefined) it.skip(`cpu: ${noCpu}`, () => undefined);
  it.skipIf(noCpu !== undefined).for(all)("cpu: %s", async ([title, run], { skip }) => {
    await using engine = await cpuEngine();
    await repeat(engine, title, run, { losses: 1e-5, weights: 1e-3 }, skip);
  });
});
