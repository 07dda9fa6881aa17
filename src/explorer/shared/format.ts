/**
 * The features file: what each latent of an autoencoder does, so laid out that a page need not load
 * more of it than it shows.
 *
 *     "SAETTAFT"                         8 bytes
 *     chunks                             each deflated (RFC 1951) by itself
 *     index                              JSON, deflated: FeatureIndex
 *     bytes of the index                 u32, little-endian
 *     "SAETTAFT"                         8 bytes
 *
 * Chunks: `table` (firings u32, max, importance, score f32, little-endian, [latents] each, in this
 * order); `words` (JSON: LatentWords of each latent); `latents/i` (JSON: StoredLatent of latents i
 * * PER_SHARD and on); `text/i` (JSON: the text of each token, i * PER_TEXT and on, of all
 * passages; where passages overlap their text is stored once); `map` (places x and y u16,
 * little-endian, [latents] each); `documents` (JSON: DocumentPlace of each) and `documents/i`
 * (JSON: StoredDocument). Older files lack the last three. In a page each chunk is an element with
 * that id, in base64.
 */

import type { FeatureSummary } from "../../run-files/feature-summary.ts";
import { FormatError } from "../../util/errors.ts";

export const VERSION = 1;
export const MAGIC = "SAETTAFT";
export const TRAILER = 12;
export const PER_SHARD = 32;
export const PER_TEXT = 2048;

export interface FeatureIndex {
  readonly version: typeof VERSION;
  readonly summary: FeatureSummary;
  /** Place and size of each chunk in the file, in bytes. */
  readonly chunks: Readonly<Record<string, readonly [offset: number, bytes: number]>>;
}

/**
 * Tokens that say in a few words what a latent is about: those it fires on, with most of its energy
 * first, and those it promotes.
 */
export interface LatentWords {
  readonly on: readonly string[];
  /** Share of the latent's energy on each of `on`; absent in older files. */
  readonly shares?: readonly number[];
  readonly up: readonly string[];
}

/** What a latent is called: the tokens it fires on, and its name, "" where it has none. */
export interface LatentName {
  readonly on: readonly string[];
  readonly name: string;
}

/**
 * `text`: number of the first token of the passage among all texts; -1: there is no text. `at`:
 * which token fires. `active`: pairs of a token's number in the passage and the latent's value on
 * it.
 */
export interface StoredPassage {
  readonly value: number;
  readonly row: number;
  readonly text: number;
  readonly length: number;
  readonly at: number;
  readonly active: readonly number[];
}

export interface StoredRange<P = StoredPassage> {
  readonly from: number;
  readonly to: number;
  readonly firings: number;
  readonly passages: readonly P[];
}

/** `firings` on this token, of how many `occurrences`; `share` of the latent's energy. */
export interface TokenBar {
  readonly text: string;
  readonly firings: number;
  readonly occurrences: number;
  readonly share: number;
}

/**
 * How much a latent's direction, through the model's final norm and unembedding, raises (or lowers)
 * the logit of a token.
 */
export interface TokenEffect {
  readonly text: string;
  readonly effect: number;
}

/** A latent that fires with another in `firings` rows: `lift` times as often as chance has it. */
export interface StoredTogether {
  readonly latent: number;
  readonly firings: number;
  readonly lift: number;
}

/** Which rows of the data a document is, from `row` on. */
export interface DocumentPlace {
  readonly row: number;
  readonly length: number;
}

/** A whole text. The codes of token i are [begin[i], begin[i + 1]) of `latents` and `values`. */
export interface StoredDocument {
  readonly row: number;
  readonly tokens: readonly string[];
  readonly begin: readonly number[];
  readonly latents: readonly number[];
  readonly values: readonly number[];
}

export interface StoredLatent<P = StoredPassage> {
  readonly contexts: number;
  /** `counts` of firings by value, in bars of `width` from 0 on. */
  readonly histogram: { readonly width: number; readonly counts: readonly number[] };
  /** The strongest firings of different contexts. */
  readonly strongest: readonly P[];
  /** Of each range of values a sample, the highest range first. */
  readonly ranges: readonly StoredRange<P>[];
  readonly tokens: readonly TokenBar[];
  readonly nearest: readonly { readonly latent: number; readonly cosine: number }[];
  /** What fires with it; absent in older files. */
  readonly together?: readonly StoredTogether[];
  /** Documents in which it is strongest, the strongest first; absent in older files. */
  readonly documents?: readonly number[];
  readonly promoted: readonly TokenEffect[] | null;
  readonly suppressed: readonly TokenEffect[] | null;
}

export const latentsChunk = (latent: number) => `latents/${Math.floor(latent / PER_SHARD)}`;
export const documentChunk = (document: number) => `documents/${document}`;
export const textChunk = (token: number) => `text/${Math.floor(token / PER_TEXT)}`;

/** No chunk is larger when inflated. */
const MOST_INFLATED = 256 * 1024 * 1024;

/** Inflates a chunk. Throws FormatError when it is none, or larger than any may be. */
export async function inflate(bytes: Uint8Array<ArrayBuffer>, where: string): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  let length = 0;
  try {
    const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      length += value.length;
      if (length > MOST_INFLATED) throw new FormatError(`a chunk of more than ${MOST_INFLATED} bytes`, { where });
    }
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    throw new FormatError("a chunk is damaged", { where, mend: "make the report again", cause });
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export async function inflateJson(bytes: Uint8Array<ArrayBuffer>, where: string): Promise<unknown> {
  const text = new TextDecoder().decode(await inflate(bytes, where));
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new FormatError("a chunk is no JSON", { where, mend: "make the report again", cause });
  }
}
