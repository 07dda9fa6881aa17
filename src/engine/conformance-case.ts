/** What a conformance case is, and the usual kinds of them. */

import { autoencoderDims } from "../sae/dims.ts";
import { SaettaError } from "../util/errors.ts";
import { type Draw, draw, selectionsOf } from "./conformance-draw.ts";
import { GuardedStep, type Setup } from "./conformance-guarded-step.ts";
import { checkSteps, type Options } from "./conformance-step.ts";
import { Tally } from "./conformance-tally.ts";
import type { Engine } from "./engine.ts";

/**
 * `worst`: the largest error, as a part of what rounding allows. A case that cannot be run says
 * why. A failure is thrown.
 */
export type Result = { readonly worst: number } | { readonly skipped: string };

export interface Case {
  readonly name: string;
  readonly run: (engine: Engine, reference: Engine) => Promise<Result>;
}

/** Small sizes, none of which is a multiple of another. */
export const SMALL: Draw = { d: 13, n: 37, k: 5, auxk: 7, B: 11 };

/** What the body throws, with where it was. */
export async function within(where: string, body: () => Promise<void>): Promise<void> {
  try {
    await body();
  } catch (thrown) {
    if (thrown instanceof SaettaError) throw new SaettaError(thrown.message, { where, cause: thrown });
    throw thrown;
  }
}

/** Each draw as a whole step on both engines. */
export function steps(
  name: string,
  draws: () => Iterable<Draw>,
  options: Options & { readonly prepare?: (setup: Setup) => void } = {},
): Case {
  return {
    name,
    run: async (engine, reference) => {
      const tally = new Tally();
      for (const o of draws()) {
        const why = engine.refuses(autoencoderDims(o.d, o.n), selectionsOf(o));
        if (why !== undefined) return { skipped: why };
        const shape = `d=${o.d} n=${o.n} k=${o.k} auxk=${o.auxk ?? 0} B=${o.B}`;
        const setup = draw(o);
        options.prepare?.(setup);
        await within(shape, () => checkSteps(tally, engine, reference, setup, options));
      }
      return { worst: tally.worst };
    },
  };
}

/** A case on one engine alone, with the setup's tensors. */
export function alone(
  name: string,
  setup: () => Setup,
  body: (guarded: GuardedStep, engine: Engine) => Promise<Result | undefined>,
): Case {
  return {
    name,
    run: async (engine) => {
      const drawn = setup();
      const why = engine.refuses(
        drawn.dims,
        [drawn.live, drawn.dead, drawn.band].filter((plan) => plan !== undefined),
      );
      if (why !== undefined) return { skipped: why };
      const guarded = await GuardedStep.create(engine, drawn);
      try {
        return (await body(guarded, engine)) ?? { worst: 0 };
      } finally {
        guarded.free();
      }
    },
  };
}

export function* shapes(
  list: readonly (readonly [d: number, n: number, k: number, auxk: number, B: number])[],
  rest: Partial<Draw> = {},
): Generator<Draw> {
  for (const [d, n, k, auxk, B] of list) yield { d, n, k, auxk, B, ...rest };
}

/** Sizes on both sides of what SIMD registers, tiles and chunks hold. */
export const EDGES = [
  [1, 1, 1, 0, 1],
  [1, 40, 3, 4, 9],
  [2, 2, 2, 2, 2],
  [3, 15, 15, 15, 4],
  [7, 16, 4, 3, 5],
  [8, 17, 1, 1, 8],
  [15, 31, 6, 2, 16],
  [16, 47, 8, 8, 17],
  [17, 48, 47, 10, 3],
  [31, 49, 49, 5, 6],
  [32, 63, 9, 20, 33],
  [33, 64, 12, 16, 31],
  [48, 65, 16, 1, 64],
  [63, 127, 10, 40, 7],
  [64, 128, 32, 30, 15],
  [65, 129, 33, 31, 13],
  [70, 193, 17, 64, 100],
  [24, 400, 32, 133, 21],
] as const;
