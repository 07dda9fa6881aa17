/** Between what other programs say of their autoencoders and our description. */

import type { ArchitectureSpec } from "../sae/architectures/index.ts";
import { checkK, checkSizes, type SaeDescription } from "../sae/description.ts";
import type { Dims } from "../sae/dims.ts";
import { type CoreParam, isCoreParam, type ParamName } from "../sae/params.ts";
import { FormatError, UsageError } from "../util/errors.ts";
import { VERSION } from "../util/version.ts";
import type { Exchanged, Floats, ReadFormatName, Told, WriteOptions } from "./format.ts";

export interface ForeignFacts {
  readonly dims: Dims;
  readonly spec: ArchitectureSpec;
  readonly skip?: boolean;
  readonly layerNorm?: boolean;
  readonly model?: string | undefined;
  readonly tensor?: string | undefined;
  readonly targetTensor?: string | undefined;
}

/**
 * The description of an autoencoder of another program; layer_norm is undone as they all do, with
 * the standard deviation alone. Throws FormatError for sizes that make no sense.
 */
export function describeForeign(format: ReadFormatName, facts: ForeignFacts, where: string): SaeDescription {
  const { dims, spec, skip = false, layerNorm = false, model, tensor, targetTensor } = facts;
  // The limits of cfg.json are the limits here.
  checkSizes(dims, where);
  checkK(spec, dims, where);
  return {
    dims,
    ...(skip ? { skip } : {}),
    spec,
    saetta: {
      version: VERSION,
      engine: "imported",
      importedFrom: format,
      normalization: layerNorm ? "layer_norm" : "none",
      ...(layerNorm ? { undoneWith: "std" as const } : {}),
      ...(model === undefined ? {} : { model }),
      ...(tensor === undefined ? {} : { tensor }),
      ...(targetTensor === undefined ? {} : { targetTensor }),
    },
  };
}

/** How each parameter of a file is read; `core` gives those that every autoencoder has. */
export function paramReader(
  core: (name: CoreParam) => Promise<Floats>,
  more: { readonly [N in ParamName]?: () => Promise<Floats> } = {},
): Exchanged["read"] {
  return async (name) => {
    if (isCoreParam(name)) return core(name);
    // Numbers of training's controller, which no file of others has: those of a start.
    if (name === "sparsity") return Float32Array.of(1, 0);
    const read = more[name];
    if (read === undefined) throw new TypeError(`no ${name} in this format`);
    return read();
  };
}

/**
 * k of the file, or else the user's. Throws UsageError when neither says it, or both do and differ.
 */
export function chosenK(stated: number | undefined, { k, otherwiseK }: Told, where: string): number {
  if (stated !== undefined && k !== undefined && stated !== k) {
    throw new UsageError(`the file says that k is ${stated}, not ${k}`, { where, mend: "leave out --k" });
  }
  const found = stated ?? k ?? otherwiseK;
  if (found === undefined) {
    throw new UsageError("the file does not say how many latents are active per row", {
      where,
      mend: "say it: saetta import FILE --k K --out DIR",
    });
  }
  return found;
}

/** A k that a file gives, which must be a whole number above 0. */
export function statedK(value: unknown, where: string): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
  throw new FormatError(`k must be a whole number of at least 1, but is ${inWords(value)}`, { where });
}

/**
 * A value of a file, for an error. Lists and dicts are not spelt out: they may hold themselves, or
 * be of any depth.
 */
export function inWords(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 40));
  return typeof value === "object" && value !== null ? "an object" : String(value);
}

/** What is done to rows first, as far as files can say it; "scale" is in the weights already. */
export function rowNormalization({ saetta }: SaeDescription): "none" | "unit" | "layer_norm" {
  const kind = saetta?.normalization ?? "none";
  return kind === "scale" ? "none" : kind;
}

/**
 * Whether the rows of the autoencoder are to be layer-normalised. Throws UsageError for what the
 * format, `title`, has no word for. `layerNorm`: whether it has one for that.
 */
export function sayable(
  description: SaeDescription,
  title: string,
  layerNorm: boolean,
  { inexact }: WriteOptions,
): boolean {
  const kind = rowNormalization(description);
  if (kind === "none") return false;
  if (kind === "unit") {
    throw new UsageError(`${title} cannot say that each row is brought to norm 1 first (--normalize unit)`, {
      mend: "train with --normalize none or scale, which every format can express",
    });
  }
  if (!layerNorm) {
    throw new UsageError(`${title} cannot say that rows are layer-normalised first`, {
      mend: "use --format saelens or openai, or train with --normalize none or scale",
    });
  }
  if (description.saetta?.undoneWith === "std" || inexact) return true;
  throw new UsageError(
    `${title} undoes layer_norm with the standard deviation of a row, training did with that + 1e-5: latents would be the same, reconstructions smaller by 1e-5 over it`,
    { mend: "accept that with --inexact, or train with --normalize none or scale" },
  );
}

/** Throws UsageError for a transcoder, which the format, `title`, cannot say. */
export function noTranscoder({ dims }: SaeDescription, title: string): void {
  if (dims.untied !== true) return;
  throw new UsageError(`${title} has no transcoders`, { mend: "use --format saelens, sparsify or circuit_tracer" });
}
