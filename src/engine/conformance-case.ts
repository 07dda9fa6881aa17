import { SaettaError } from "../util/errors.ts";
import type { Draw } from "./conformance-draw.ts";
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
