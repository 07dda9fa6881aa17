/**
 * The conformance cases must be able to fail: each of these faults in the maths, put into an
 * engine, is found by one of them.
 */

import { afterEach, describe, expect, it, vi } from "vitest";
import * as maths from "../sae/math.ts";
import { CASES } from "./conformance.ts";
import type { Engine } from "./engine.ts";
import { createReferenceEngine } from "./reference.ts";

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

async function faulty(fault: Partial<Maths>): Promise<Engine> {
  vi.resetModules();
  vi.doMock("../sae/math.ts", () => ({ ...maths, ...fault }));
  return (await import("./reference.ts")).createReferenceEngine();
}

/** Those that go over many shapes take seconds, and most faults are found without them. */
const isLong = (name: string) =>
  /^(whole steps|skewed lists|the same step twice|decode, residual and codeGrad)/.test(name);
const QUICK_FIRST = CASES.toReversed().toSorted((a, b) => Number(isLong(a.name)) - Number(isLong(b.name)));

/** The first case that fails. */
async function firstFailure(engine: () => Promise<Engine>): Promise<string | undefined> {
  for (const { name, run } of QUICK_FIRST) {
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
    vi.doUnmock("../sae/math.ts");
  });

  it.each(Object.entries(FAULTS))("%s", async (_, fault) => {
    expect(await firstFailure(() => faulty(fault))).toBeDefined();
  });
});
