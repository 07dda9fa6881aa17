/**
 * The conformance cases must be able to fail: each of these faults in the maths, put into an
 * engine, is found by one of them.
 */

import { afterEach, describe, expect, it, vi } from "vitest";
import * as maths from "../sae/math.ts";
import { CASES } from "./conformance.ts";
import type { Case } from "./conformance-case.ts";
import { SELECTIONS } from "./conformance-selection-cases.ts";
import type { Engine } from "./engine.ts";
import { createReferenceEngine } from "./reference.ts";
import * as memory from "./reference-memory.ts";
import * as select from "./reference-select.ts";

type Maths = typeof maths;

const FAULTS: Readonly<Record<string, Partial<Maths>>> = {
  "the higher latent wins a tie": {
    topK: (pre, k, latent, value, isCandidate) => {
      const n = pre.length;
      const on = maths.topK(pre.slice().reverse(), k, latent, value, (j) => isCandidate(n - 1 - j));
      for (let slot = 0; slot < on; slot++) latent[slot] = n - 1 - latent[slot];
      return on;
    },
  },
  "any latent can be selected for the auxiliary loss": {
    topK: (pre, k, latent, value) => maths.topK(pre, k, latent, value, () => true),
  },
  "values below 0 are on": {
    topK: (pre, k, latent, value, isCandidate) => {
      const on = maths.topK(
        pre.map((p) => p + 100),
        k,
        latent,
        value,
        isCandidate,
      );
      for (let slot = 0; slot < on; slot++) value[slot] -= 100;
      return on;
    },
  },
  "dead at the threshold": { isDead: (age, deadAfter) => age >= deadAfter },
  "rows normalised without their mean taken off": {
    normalizeRow: (x, by) => {
      if (by.kind === "none" || by.kind === "scale") return maths.normalizeRow(x, by);
      const { size } = maths.rowStatistics(x, by);
      for (let i = 0; i < x.length; i++) x[i] /= size;
    },
  },
  "the biased spread of a row": {
    normalizeRow: (x, by) => {
      maths.normalizeRow(x, by);
      if (by.kind === "layer_norm") for (let i = 0; i < x.length; i++) x[i] *= Math.sqrt(x.length / (x.length - 1));
    },
  },
  "NaN for a constant row": {
    normalizeRow: (x, by) => {
      const constant = by.kind !== "none" && maths.rowStatistics(x, by).size === 0;
      maths.normalizeRow(x, by);
      if (constant) x.fill(Number.NaN);
    },
  },
  "zeros for a row that is not finite": {
    normalizeRow: (x, by) => {
      maths.normalizeRow(x, by);
      for (let i = 0; i < x.length; i++) x[i] = Number.isFinite(x[i]) ? x[i] : 0;
    },
  },
  "rows divided by the factor": {
    normalizeRow: (x, by) => maths.normalizeRow(x, { ...by, factor: 1 / by.factor }),
  },
  "the inputs are not centred": {
    preActivations: (w, x, pre) => maths.preActivations(w, x, pre, true),
  },
  "a decoder row too few": {
    decode: (decoder, z, ...rest) =>
      maths.decode(decoder, { ...z, value: z.value.map((v, slot) => (slot % z.capacity === 2 ? 0 : v)) }, ...rest),
  },
  "no bias in the reconstruction": {
    prefixResiduals: (prefixes, bias, ...rest) =>
      maths.prefixResiduals(
        prefixes,
        bias.map(() => 0),
        ...rest,
      ),
  },
  "the auxiliary target with the wrong sign": {
    deadResidual: (err, auxErr) =>
      maths.deadResidual(
        err.map((e) => -e),
        auxErr,
      ),
  },
  "the auxiliary normaliser not centred": {
    lossScales: (s, ...rest) => maths.lossScales({ ...s, errColumns: new Float64Array(s.errColumns.length) }, ...rest),
  },
  "a loss per row, not per element": {
    lossScales: (s, rows, mseScale, auxCoef) => maths.lossScales(s, rows, mseScale * s.errColumns.length, auxCoef),
  },
  "half of the gradient of a code": {
    codeGradients: (decoder, z, err, prefixes) =>
      maths.codeGradients(
        decoder,
        z,
        err.map((e) => e / 2),
        prefixes,
      ),
  },
  "no gradient of b_pre through the inputs": {
    gradients: (input, g) => {
      maths.gradients(input, g);
      g.preBias.forEach((_, i) => {
        g.preBias[i] = input.live.scale * input.planeColumns[i];
      });
    },
  },
  "no gradient from the dead branch": {
    gradients: (input, g) => maths.gradients({ ...input, dead: undefined }, g),
  },
  "the decoder's gradient not projected": { project: () => undefined },
  "clipping by c / (norm + 1e-6)": { clipFactor: (norm, clip) => (clip > 0 ? Math.min(1, clip / (norm + 1e-6)) : 1) },
  "eps inside Adam's root": {
    adam: (o, w, m, v, g, factor) => {
      const before = w.slice();
      maths.adam(o, w, m, v, g, factor);
      w.forEach((_, i) => {
        w[i] = before[i] - (o.lr * (m[i] / (1 - o.beta1 ** o.t))) / Math.sqrt(v[i] / (1 - o.beta2 ** o.t) + o.eps);
      });
    },
  },
  "no Adam step where the gradient is 0": {
    adam: (o, w, m, v, g, factor) => {
      const before = [w, m, v].map((a) => a.slice());
      maths.adam(o, w, m, v, g, factor);
      for (const [a, held] of [w, m, v].map((array, i) => [array, before[i]] as const)) {
        a.forEach((_, i) => {
          if (g[i] === 0) a[i] = held[i];
        });
      }
    },
  },
  "no bias correction": { adam: (o, ...rest) => maths.adam({ ...o, t: 1e9 }, ...rest) },
  "decoder rows not of length 1": { unitRows: () => undefined },
  "NaN for a row of zeros": {
    unitRows: (decoder, m, v, d, t) => {
      const zero = decoder.map((value) => (value === 0 ? Number.NaN : value));
      maths.unitRows(decoder, m, v, d, t);
      zero.forEach((value, i) => {
        if (Number.isNaN(value)) decoder[i] = value;
      });
    },
  },
  "another random row": { unitRows: (decoder, m, v, d, t) => maths.unitRows(decoder, m, v, d, t + 1) },
  "the average the other way round": { average: (ema, w, decay) => maths.average(ema, w, 1 - decay) },
  "ages that wrap": { nextAge: (age, fired, rows) => (fired ? 0 : age + rows) },
  "age 1 after a firing": { nextAge: (age, fired, rows) => (fired ? 1 : maths.nextAge(age, fired, rows)) },
};

/** A rule that looks at one latent at a time: whether it is on, and its value. */
type Compact = typeof maths.inBand;
const compacted =
  (
    isOn: (z: number, threshold: number, bandwidth: number) => boolean,
    valueAt = (z: number, _: number) => z,
  ): Compact =>
  (pre, threshold, bandwidth, latent, value) => {
    const at = (j: number) => threshold[threshold.length === 1 ? 0 : j]!;
    const found = Array.from(pre.keys()).filter((j) => isOn(pre[j]!, at(j), bandwidth));
    for (const [slot, j] of found.slice(0, latent.length).entries()) {
      latent[slot] = j;
      value[slot] = valueAt(pre[j]!, at(j));
    }
    return found.length;
  };
const above =
  (...[isOn, valueAt]: Parameters<typeof compacted>): Maths["aboveThreshold"] =>
  (pre, threshold, latent, value) =>
    compacted(isOn, valueAt)(pre, threshold, 0, latent, value);

/** The same pairs, the last one first. */
function reversed<A extends readonly unknown[]>(
  compact: (...args: [...A, Uint32Array, Float64Array]) => number,
): (...args: [...A, Uint32Array, Float64Array]) => number {
  return (...args) => {
    const on = compact(...args);
    for (const part of args.slice(-2) as [Uint32Array, Float64Array]) part.subarray(0, on).reverse();
    return on;
  };
}

const RULE_FAULTS: Readonly<Record<string, Partial<Maths>>> = {
  "batchtopk: one too many": { batchCut: (values, kept) => maths.batchCut(values, kept + 1) },
  "batchtopk: one too few": { batchCut: (values, kept) => maths.batchCut(values, Math.max(0, kept - 1)) },
  "batchtopk: no value that is equal to the lowest": {
    batchCut: (values, kept) => ({ ...maths.batchCut(values, kept), equal: 0 }),
  },
  "batchtopk: all values that are equal to the lowest": {
    batchCut: (values, kept) => ({ ...maths.batchCut(values, kept), equal: values.length }),
  },
  "batchtopk: none where there are fewer than are asked for": {
    batchCut: (values, kept) =>
      kept > values.filter((value) => value > 0).length ? { lowest: 0, equal: 0 } : maths.batchCut(values, kept),
  },
  "batchtopk: one value at least": { batchCut: (values, kept) => maths.batchCut(values, Math.max(1, kept)) },
  "batchtopk: the cut at the highest value": {
    batchCut: (values) => maths.batchCut(values, 1),
  },
  "cut: the mean the other way round": { moveCut: (cut, lowest, decay) => maths.moveCut(cut, lowest, 1 - decay) },
  "cut: towards 0 where none was kept": {
    moveCut: (cut, lowest, decay) => {
      cut[0]! += (1 - decay) * (lowest - cut[0]!);
    },
  },
  "threshold: a value at its threshold is on": { aboveThreshold: above((z, threshold) => z > 0 && z >= threshold) },
  "threshold: values below 0 are on": { aboveThreshold: above((z, threshold) => z > threshold) },
  "threshold: 0 for all latents": { aboveThreshold: above((z) => z > 0) },
  "threshold: taken off the value": {
    aboveThreshold: above(
      (z, threshold) => z > 0 && z > threshold,
      (z, threshold) => z - threshold,
    ),
  },
  "threshold: that of latent 0 for all": {
    aboveThreshold: (pre, threshold, ...rest) => maths.aboveThreshold(pre, threshold.slice(0, 1), ...rest),
  },
  "threshold: from the last latent to the first": { aboveThreshold: reversed(maths.aboveThreshold) },
  "threshold: no more than there are slots": {
    aboveThreshold: (pre, threshold, latent, value) =>
      Math.min(latent.length, maths.aboveThreshold(pre, threshold, latent, value)),
  },
  "band: twice as wide": {
    inBand: (pre, threshold, bandwidth, ...rest) => maths.inBand(pre, threshold, 2 * bandwidth, ...rest),
  },
  "band: its edge is inside": { inBand: compacted((z, threshold, width) => Math.abs(z - threshold) <= width / 2) },
  "band: only above 0": { inBand: compacted((z, threshold, width) => z > 0 && Math.abs(z - threshold) < width / 2) },
  "band: only above the threshold": {
    inBand: compacted((z, threshold, width) => z > threshold && z - threshold < width / 2),
  },
  "band: values after relu": {
    inBand: compacted(
      (z, threshold, width) => Math.abs(z - threshold) < width / 2,
      (z) => Math.max(0, z),
    ),
  },
  "band: from the last latent to the first": { inBand: reversed(maths.inBand) },
  "band: no more than there are slots": {
    inBand: (pre, threshold, bandwidth, latent, value) =>
      Math.min(latent.length, maths.inBand(pre, threshold, bandwidth, latent, value)),
  },
};

/** Faults of the reference engine's own files, not of the maths. */
const ENGINE_FAULTS: Readonly<
  Record<string, { readonly memory?: Partial<typeof memory>; readonly select?: Partial<typeof select> }>
> = {
  "full: not marked": { memory: { markFull: () => undefined } },
  "full: marked as not finite": { memory: { markFull: memory.markBad } },
  "full: takes off what is not finite": {
    memory: {
      markFull: (t) => {
        memory.own(t.bad).u32[0] = 0x4000_0000;
      },
    },
  },
  "full: load and update go on": { memory: { isFull: () => false } },
  "batchtopk: what was cut off still counts as fired": {
    select: {
      keepOfBatch: (collective, codes, t) => {
        const fired = memory.own(t.fired).bytes.slice();
        select.keepOfBatch(collective, codes, t);
        memory.own(t.fired).bytes.set(fired);
      },
    },
  },
  "batchtopk: no cut is told": {
    select: {
      keepOfBatch: (collective, codes, t) => {
        select.keepOfBatch(collective, codes, t);
        memory.own(t.cut).f64[0] = 0;
      },
    },
  },
  "batchtopk: nothing is cut": { select: { keepOfBatch: () => undefined } },
  "topk: as many as there are slots": {
    select: {
      selectRow: (rule, z, row, pre, w, hyper, ...rest) =>
        select.selectRow(rule, z, row, pre, w, { ...hyper, rowK: z.capacity }, ...rest),
    },
  },
  "topk: fewer also among the dead": {
    select: {
      selectRow: (rule, z, row, pre, w, hyper, isCandidate) => {
        const on = select.selectRow(rule, z, row, pre, w, hyper, isCandidate);
        const [from, end] = [row * z.capacity + Math.min(on, hyper.rowK), (row + 1) * z.capacity];
        z.latent.fill(maths.NO_LATENT, from, end);
        z.value.fill(0, from, end);
        return on;
      },
    },
  },
};

async function faulty(fault: Partial<Maths>, engine: (typeof ENGINE_FAULTS)[string] = {}): Promise<Engine> {
  vi.resetModules();
  vi.doMock("../sae/math.ts", () => ({ ...maths, ...fault }));
  // What is left as it is must not see the maths from before.
  if (Object.keys(engine).length > 0) vi.doMock("./reference-memory.ts", () => ({ ...memory, ...engine.memory }));
  if (engine.select) vi.doMock("./reference-select.ts", () => ({ ...select, ...engine.select }));
  return (await import("./reference.ts")).createReferenceEngine();
}

/** Those that go over many shapes take seconds, and most faults are found without them. */
const isLong = (name: string) =>
  /^(whole steps|skewed lists|the same step twice|decode, residual and codeGrad)|SIMD widths|exact sums|many rows/.test(
    name,
  );
const quickFirst = (cases: readonly Case[]) =>
  cases.toReversed().toSorted((a, b) => Number(isLong(a.name)) - Number(isLong(b.name)));
const QUICK_FIRST = quickFirst(CASES);
const SELECTIONS_FIRST = quickFirst(SELECTIONS);

/** The first case that fails. */
async function firstFailure(cases: readonly Case[], engine: () => Promise<Engine>): Promise<string | undefined> {
  for (const { name, run } of cases) {
    try {
      await run(await engine(), createReferenceEngine());
    } catch {
      return name;
    }
  }
  return undefined;
}

describe("the conformance cases find", () => {
  afterEach(() => {
    for (const path of ["../sae/math.ts", "./reference-memory.ts", "./reference-select.ts"]) vi.doUnmock(path);
  });

  it.each(Object.entries(FAULTS))("%s", async (_, fault) => {
    expect(await firstFailure(QUICK_FIRST, () => faulty(fault))).toBeDefined();
  });

  it.each(Object.entries(RULE_FAULTS))("%s", async (_, fault) => {
    expect(await firstFailure(SELECTIONS_FIRST, () => faulty(fault))).toBeDefined();
  });

  it.each(Object.entries(ENGINE_FAULTS))("%s", async (_, fault) => {
    expect(await firstFailure(SELECTIONS_FIRST, () => faulty({}, fault))).toBeDefined();
  });

  it("nothing where there is no fault", async () => {
    for (const { name, run } of SELECTIONS.filter((each) => !isLong(each.name)))
      await expect(
        run(await faulty({}, { memory: {}, select: {} }), createReferenceEngine()),
        name,
      ).resolves.toBeDefined();
  });
});
