import type { Engine } from "./engine.ts";

/** `worst`: the largest error, as a part of what rounding allows. A case that cannot be run says why. A failure is thrown. */
export type Result = { readonly worst: number } | { readonly skipped: string };

export interface Case {
  readonly name: string;
  readonly run: (engine: Engine, reference: Engine) => Promise<Result>;
}
