/**
 * WHERE DATA ENTERS. A source is rows on demand: `rows` activations of width `dIn`, in one dtype,
 * numbered from 0. Training knows nothing else about files; a new kind of input is a new Source and
 * nothing more. The rows of a transcoder are pairs: an input of `dIn` numbers followed by its
 * target of `dOut` numbers (`pair.ts`).
 */

import { BYTES } from "../util/bytes.ts";

export type RowDType = "f64" | "f32" | "bf16" | "f16";

export function isRowDType(dtype: string | undefined): dtype is RowDType {
  return dtype === "f64" || dtype === "f32" || dtype === "bf16" || dtype === "f16";
}

export interface Source {
  /** For people: "acts.h5: 204,800 x 256 f16". */
  readonly description: string;
  /**
   * The files behind it, as the user named them (recorded in config.json, used by resume and eval).
   */
  readonly paths: readonly string[];
  /** The files of the targets, of a source of pairs. */
  readonly targetPaths?: readonly string[];
  /** Columns of the input. */
  readonly dIn: number;
  /** Columns of the target that follows each input in memory; undefined for an autoencoder. */
  readonly dOut?: number | undefined;
  readonly rows: number;
  readonly dtype: RowDType;
  /**
   * Rows a sequence (T of a 3-D dataset); undefined for 2-D data. Sequences start at multiples of
   * it.
   */
  readonly sequence: number | undefined;
  /**
   * Rows that the file stores together (an HDF5 chunk); reads that start and end on multiples of it
   * are the cheapest. At least 1.
   */
  readonly grain: number;
  /**
   * Rows that are computed together when one of them is read, from multiples of it on; undefined
   * where rows are only read.
   */
  readonly computed?: number;
  /** What the file says of its origin; all optional. */
  readonly origin: Origin;
  /**
   * Set for rows that are read from the first to the last only: as often as wanted ("again": a read
   * that goes back starts over), or "once".
   */
  readonly stream?: "again" | "once";
  /**
   * Of rows that are read once: those that were set aside, which are the hold-out and can be read
   * at any time.
   */
  readonly heldOut?: { readonly first: number; readonly count: number };
  /** Of rows that are read once: how many of the first ones can be read without waiting. */
  readonly ready?: number;
  /** Of rows that are read once: rows before this one were read by the run that is continued. */
  readonly from?: number;
  /**
   * Rows [first, first + count) as little-endian elements into the start of `into`. A stream
   * rejects with the signal's reason when it is aborted.
   */
  read(first: number, count: number, into: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** Token ids of the rows; undefined where the file has none. */
  readonly tokens: ((first: number, count: number) => Promise<Int32Array>) | undefined;
  /** What the reader took for granted or left out, a sentence each. */
  readonly notes?: readonly string[] | undefined;
  /** Why the file's token ids could not be read, where it has some. */
  readonly tokensProblem?: string | undefined;
  /**
   * 1 for rows that are there, 0 for padding, which nothing may be learned from or measured on;
   * left out where every row is there.
   */
  readonly mask?: ((first: number, count: number) => Promise<Uint8Array>) | undefined;
  /**
   * Which of `count` raw rows are left out for their values, where that is only known when they are
   * read; missing where none is.
   */
  readonly leftOut?: (raw: Uint8Array, count: number) => readonly number[];
  /** The row, as a person finds it: "acts.h5, row 123 (sequence 0, position 123)". */
  locate(row: number): string;
  close(): Promise<void>;
}

/** How rows lie in memory, one after the other. */
export type RowFormat = Pick<Source, "dIn" | "dOut" | "dtype">;

/** Elements of a row in memory: the input, and the target of a pair. */
export function rowWidth({ dIn, dOut = 0 }: Pick<Source, "dIn" | "dOut">): number {
  return dIn + dOut;
}

/** Bytes of a row in memory. */
export function bytesPerRow(format: RowFormat): number {
  return rowWidth(format) * BYTES[format.dtype];
}

export interface Origin {
  readonly model?: string;
  readonly modelSha256?: string;
  readonly tensor?: string;
  /** The tensor of the targets, of a source of pairs. */
  readonly targetTensor?: string;
  /** Path of the tokenizer.json used. */
  readonly tokenizer?: string;
  /** Where else the model is looked for: folders may have been moved since. */
  readonly modelPlaces?: readonly string[];
  readonly tokenizerPlaces?: readonly string[];
  /** Id of the token that starts every document. */
  readonly startToken?: number;
}
