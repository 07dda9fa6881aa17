/**
 * What autoencoders look like on their way in and out. Every format of another program is one file
 * next to this one, and speaks only of this: a description (sae/description.ts), an array per
 * parameter, and what the file says that has no place here.
 */

import type { SaeDescription } from "../sae/description.ts";
import type { ParamName } from "../sae/params.ts";

export const FORMATS = ["saelens", "sparsify", "openai", "dictionary_learning", "circuit_tracer"] as const;
export type FormatName = (typeof FORMATS)[number];
/** The formats that are read; those that are written are fewer. */
export type ReadFormatName =
  | FormatName
  | "qwen_scope"
  | "gemma_scope"
  | "gemma_scope_2"
  | "llama_scope"
  | "llamascopium"
  | "goodfire";

export type Floats = Float32Array | Float64Array;

/**
 * An autoencoder or transcoder: encoder (x - preBias) + latentBias, of which the description's rule
 * for inference (sae/rule.ts) selects latents, decoded and preBias added, on rows normalised as the
 * description says.
 */
export interface Exchanged {
  readonly description: SaeDescription;
  /**
   * A parameter of the description (`paramNames`), in the shape of sae/params.ts; f64 where the
   * file has f64, else f32, into which f16 and bf16 fit exactly. Throws FormatError when damaged.
   */
  read(name: ParamName): Promise<Floats>;
}

/** One that was read from a file of another program. Close it. */
export interface Foreign extends Exchanged {
  readonly format: ReadFormatName;
  /** The files it is in. */
  readonly files: readonly string[];
  /**
   * What the file holds or claims that is not carried over, and what was done to the weights so
   * that they say the same here; a sentence each.
   */
  readonly notes: readonly string[];
  close(): Promise<void>;
}

/**
 * Where a format is looked for: a folder with the names in it, and the file in it that was named,
 * if one was.
 */
export interface Place {
  readonly folder: string;
  readonly names: ReadonlySet<string>;
  readonly file: string | undefined;
}

/** What a user knows and a file may not say. */
export interface Told {
  /**
   * Active latents a row. Who says so also says that it is TopK, where the file leaves that open.
   */
  readonly k?: number | undefined;
  /** The same where the file does not say it, and nothing beyond it. */
  readonly otherwiseK?: number | undefined;
}

/** A file to be written: `content` calls `write` with its bytes, in order. */
export interface OutputFile {
  readonly name: string;
  readonly content: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>;
}

export interface WriteOptions {
  /** Write what the format can only say nearly. */
  readonly inexact: boolean;
  /** openai: the bare state dict, as train.py writes it. */
  readonly bare: boolean;
  /** Names of the language model and of its hook, where they are others than the description's. */
  readonly model?: string | undefined;
  readonly hook?: string | undefined;
  /** Of a transcoder: the hook that it writes to. */
  readonly targetHook?: string | undefined;
  /** circuit_tracer: number of the layer, where the hook's name does not say it. */
  readonly layer?: number | undefined;
}

/** An autoencoder in a format's files. */
export interface Written {
  readonly files: readonly OutputFile[];
  /** What the format does not carry, or says in another way; a sentence each. */
  readonly notes: readonly string[];
}

export interface ForeignReader {
  readonly name: ReadFormatName;
  /**
   * Throws FormatError for a file that is damaged or computes what Saetta does not, UsageError when
   * it does not say enough.
   */
  open(place: Place, told: Told): Promise<Foreign>;
  /** The file's own words, to be evaluated literally (rules.ts). */
  rules(place: Place, told: Told): Promise<Rules>;
}

/** A format that is written, too. */
export interface ForeignFormat extends ForeignReader {
  readonly name: FormatName;
  /**
   * The files that say the same in this format; `dtype` is that of all arrays. Throws UsageError,
   * with the flag that helps, where the format cannot say it.
   */
  write(sae: Exchanged, dtype: "f32" | "f64", options: WriteOptions): Written | Promise<Written>;
}

/** An autoencoder as its file says it, in float64: what --verify compares with. */
export interface Rules {
  readonly selects:
    | { readonly kind: "topk"; readonly k: number }
    /** `of(j)`: what the value of latent j must be above. */
    | { readonly kind: "threshold"; readonly of: (j: number) => number };
  /** Of one row [dIn]: all latents [n], and the reconstruction [dOut]. */
  run(row: Float64Array): { readonly latents: Float64Array; readonly output: Float64Array };
}
