/**
 * The cases of what follows selection must be able to fail: each of these faults in the maths, put
 * into an engine, is found by one of them.
 */

import { afterEach, describe, expect, it, vi } from "vitest";
import * as maths from "../sae/math.ts";
import { BRANCH_CASES } from "./conformance-branches.ts";
import type { Case } from "./conformance-case.ts";
import type { Engine } from "./engine.ts";
import { createReferenceEngine } from "./reference.ts";

type Maths = typeof maths;
type Gradients = Maths["gradients"];
type Input = Parameters<Gradients>[0];

/** The gradients of another input. */
const of =
  (change: (input: Input) => Partial<Input>): Gradients =>
  (input, g) =>
    maths.gradients({ ...input, ...change(input) }, g);

/** The gradients, and then a change of them. */
const then =
  (change: (g: maths.Weights, input: Input) => void): Gradients =>
  (input, g) => {
    maths.gradients(input, g);
    change(g, input);
  };

const ofSparsity = (change: (sparsity: maths.Sparsity) => Partial<maths.Sparsity>): Gradients =>
  of(({ sparsity }) => ({ sparsity: sparsity && { ...sparsity, ...change(sparsity) } }));

/** The last plane of err [G,B,d]; `prefixes` says how many there are. */
function lastPlane(err: Float64Array, prefixes: readonly maths.Prefix[] | undefined): Float64Array {
  return err.subarray(err.length - err.length / (prefixes?.length ?? 1));
}

const MATRYOSHKA: Readonly<Record<string, Partial<Maths>>> = {
  "prefixes without their weights": {
    prefixResiduals: (prefixes, ...rest) =>
      maths.prefixResiduals(
        prefixes.map(({ end }) => ({ end, weight: 1 })),
        ...rest,
      ),
  },
  "a plane without the residuals of later prefixes": {
    prefixResiduals: (prefixes, preBias, target, err) => {
      const squared = maths.prefixResiduals(prefixes, preBias, target, err);
      const size = target.length;
      for (let e = 0; e < size * (prefixes.length - 1); e++) err[e]! -= err[e + size]!;
      return squared;
    },
  },
  "a plane without the latents of earlier prefixes": {
    prefixResiduals: (prefixes, preBias, target, err) => {
      const size = target.length;
      const alone = err.slice();
      const squared = maths.prefixResiduals(prefixes, preBias, target, err);
      if (prefixes.length > 1)
        for (let e = 0; e < size; e++) err[size * (prefixes.length - 1) + e] = alone[e]! + preBias[0]! - target[e]!;
      return squared;
    },
  },
  "no squared residuals of prefixes": {
    prefixResiduals: (...args) => maths.prefixResiduals(...args).fill(0),
  },
  "the first latent after a prefix is in it": {
    decode: (decoder, z, out, prefixes) =>
      maths.decode(
        decoder,
        z,
        out,
        prefixes?.map(({ end, weight }) => ({ end: end + 1, weight })),
      ),
  },
  "codes' gradients from the last plane": {
    codeGradients: (decoder, z, err, prefixes) => maths.codeGradients(decoder, z, lastPlane(err, prefixes)),
  },
  "the decoder's gradient from the last plane": {
    gradients: of(({ live }) => ({ live: { ...live, err: lastPlane(live.err, live.prefixes), prefixes: undefined } })),
  },
  "b_dec's gradient from the last plane": {
    gradients: of(({ live, planeColumns }) => {
      const columns = new Float64Array(planeColumns.length);
      lastPlane(live.err, live.prefixes).forEach((value, e) => {
        columns[e % columns.length]! += value;
      });
      return { planeColumns: columns };
    }),
  },
  "the auxiliary target from the first plane": {
    deadResidual: (err, auxErr) => maths.deadResidual(new Float64Array(err.buffer, 0, err.length), auxErr),
  },
};

const TRANSCODERS: Readonly<Record<string, Partial<Maths>>> = {
  "b_dec subtracted from the input": { gradients: of(() => ({ untied: false })) },
  "a gradient of b_dec through the input": {
    gradients: then((g, { w, untied }) => {
      if (untied) for (let i = 0; i < g.preBias.length; i++) g.preBias[i]! -= g.latentBias[0]! * w.encoder[i]!;
    }),
  },
  "no skip connection": { addSkip: () => undefined },
  "a skip connection that is turned": {
    addSkip: (skip, x, out, dIn) => {
      const dOut = skip.length / dIn;
      maths.addSkip(
        skip.map((_, e) => skip[(e % dIn) * dOut + Math.floor(e / dIn)]!),
        x,
        out,
        dIn,
      );
    },
  },
  "no gradient of the skip connection": { gradients: then((g) => g.skip?.fill(0)) },
  "a skip connection's gradient without the factor of the loss": {
    gradients: then((g, { live }) => {
      g.skip?.forEach((value, e) => {
        g.skip![e] = value / live.scale;
      });
    }),
  },
  "a skip connection's gradient from the last plane": {
    gradients: then((g, input) => {
      if (g.skip === undefined || input.live.prefixes === undefined) return;
      const { live } = input;
      const own = { ...g, skip: g.skip };
      const other = Object.fromEntries(Object.entries(own).map(([name, a]) => [name, a.slice()])) as typeof own;
      maths.gradients(
        { ...input, live: { ...live, err: lastPlane(live.err, live.prefixes), prefixes: undefined } },
        other,
      );
      g.skip.set(other.skip);
    }),
  },
  "an element of the skip connection's gradient twice": {
    gradients: then((g) => {
      if (g.skip !== undefined) g.skip[g.skip.length - 1]! *= 2;
    }),
  },
};

const JUMP_RELU: Readonly<Record<string, Partial<Maths>>> = {
  "no gradient of the count": { gradients: ofSparsity(({ kind }) => (kind === "step" ? { kind: "none" } : {})) },
  "no gradient of the thresholds": { gradients: of(() => ({ band: undefined })) },
  "thresholds' gradients with the other sign": {
    gradients: then((g) => {
      g.threshold?.forEach((value, j) => {
        g.threshold![j] = -value;
      });
    }),
  },
  "a window twice as wide": { gradients: ofSparsity(({ bandwidth }) => ({ bandwidth: 2 * bandwidth })) },
  "thresholds' gradients without those of the codes": {
    gradients: of(({ band }) => ({ band: band && { ...band, grad: new Float64Array(band.grad.length) } })),
  },
  "another scale of tanh": { gradients: ofSparsity(({ scale }) => ({ scale: 2 * scale })) },
  "no penalty on live codes": { gradients: ofSparsity(({ kind }) => (kind === "tanh" ? { kind: "none" } : {})) },
  "the quadratic penalty at half of L0": { gradients: ofSparsity(({ l0 }) => ({ l0: l0 / 2 })) },
  "no multiplier of the coefficient": {
    gradients: ofSparsity(({ coefficient }) => ({ coefficient: coefficient / 1.5 })),
  },
  "no pre-activation loss of the dead": { gradients: of(() => ({ isDead: undefined })) },
  "the pre-activation loss of all latents": { gradients: of(({ isDead }) => ({ isDead: isDead && (() => true) })) },
  "the pre-activation loss of one row less": {
    gradients: of(({ countedRows }) => ({ countedRows: countedRows && countedRows - 1 })),
  },
  "the controller the other way round": {
    control: (sparsity, l0, target, gain) => maths.control(sparsity, 2 * target - l0, target, gain),
  },
  "the controller without a limit": {
    control: (sparsity, l0, target, gain) => {
      const before = sparsity[0]!;
      maths.control(sparsity, l0, target, gain);
      if (gain > 0) sparsity[0] = before * Math.exp(gain * (sparsity[1]! / target - 1));
    },
  },
  "the controller without smoothing": {
    control: (sparsity, l0, target, gain) => {
      if (gain > 0) sparsity[1] = 0;
      maths.control(sparsity, l0, target, gain);
    },
  },
};

const SHARED: Readonly<Record<string, Partial<Maths>>> = {
  "the cut moved by its decay": { moveCut: (cut, lowest, decay) => maths.moveCut(cut, lowest, 1 - decay) },
  "gradients projected where rows keep their length": {
    project: (decoder, gradient, d) => maths.project(decoder, gradient.fill(0), d),
  },
};

async function faulty(fault: Partial<Maths>): Promise<Engine> {
  vi.resetModules();
  vi.doMock("../sae/math.ts", () => ({ ...maths, ...fault }));
  return (await import("./reference.ts")).createReferenceEngine();
}

/** Those that go over many shapes take seconds, and most faults are found without them. */
const isLong = (name: string) => /sizes around|many rows|the same with|more rows than|^branches/.test(name);

/** The first case that fails; those of `architecture` are tried first. */
async function firstFailure(engine: Engine, architecture: string): Promise<string | undefined> {
  const rank = ({ name }: Case) => Number(isLong(name)) + 2 * Number(!name.startsWith(architecture.toLowerCase()));
  for (const { name, run } of BRANCH_CASES.toSorted((a, b) => rank(a) - rank(b))) {
    try {
      await run(engine, createReferenceEngine());
    } catch {
      return name;
    }
  }
  return undefined;
}

describe.each([
  ["Matryoshka", MATRYOSHKA],
  ["transcoder", TRANSCODERS],
  ["JumpReLU", JUMP_RELU],
  ["cut", SHARED],
])("the conformance cases find, of %s", (architecture, faults) => {
  afterEach(() => {
    vi.doUnmock("../sae/math.ts");
  });

  it.each(Object.entries(faults))("%s", async (_, fault) => {
    expect(await firstFailure(await faulty(fault), architecture)).toBeDefined();
  });
});
