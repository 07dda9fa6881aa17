/**
 * Files of sparse codes: the matrix [rows, latents] of activations in compressed rows (CSR). The
 * codes of row r are entries indptr[r] to indptr[r + 1] of `data` and `indices`, in ascending order
 * of the latents. The same arrays under the same names in each format:
 *
 *     data         f32 [codes]      activations, none of them 0
 *     indices      i32 [codes]      latents
 *     indptr       i64 [rows + 1]
 *     shape        i64 [2]          rows, latents
 *     row_numbers  i64 [rows]       numbers of the rows in the data, from 0, over all its files
 *     tokens       i32 [rows]       token ids, where the data has them
 *     positions    i32 [rows]       positions in the sequence, where the data has sequences
 *     row_mean, row_size  f64 [rows]  where each row is normalised by itself: a row is its
 *                                   normalised row times size, plus mean
 *
 * `.npz` also has `format`, so that scipy.sparse.load_npz reads it; `.h5` has attributes and
 * `.safetensors` metadata, `format` among them.
 *
 * How many codes there are is known at the end. Until then each array is in a file without a name
 * next to the output, which is gone however the process ends; memory does not grow with the rows.
 */

import { type FileHandle, open, rm } from "node:fs/promises";
import { layOutHdf5 } from "../formats/hdf5-write.ts";
import { npyHead } from "../formats/npy.ts";
import { layOut } from "../formats/safetensors.ts";
import { type Write, ZipWriter } from "../formats/zip-write.ts";
import { appendTo, atomicWrite, refuseWriting } from "../util/atomic-write.ts";
import { BYTES, bytesOf, readFully } from "../util/bytes.ts";
import { UsageError } from "../util/errors.ts";

export type CodesFormat = "npz" | "h5" | "safetensors";

const ENDINGS: Readonly<Record<string, CodesFormat>> = {
  ".npz": "npz",
  ".h5": "h5",
  ".hdf5": "h5",
  ".safetensors": "safetensors",
};

/** The format that the name of a file asks for. Throws UsageError where it asks for none. */
export function codesFormatOf(path: string): CodesFormat {
  const ending = Object.keys(ENDINGS).find((each) => path.toLowerCase().endsWith(each));
  if (ending !== undefined) return ENDINGS[ending]!;
  throw new UsageError("the name does not say the format", {
    where: path,
    mend: `end it with ${Object.keys(ENDINGS).slice(0, -1).join(", ")} or ${Object.keys(ENDINGS).at(-1)}`,
  });
}

/** Rows of codes: entry e of row r is one of starts[r] <= e < starts[r + 1]. */
export interface CsrRows {
  readonly starts: Float64Array;
  readonly data: Float32Array;
  readonly indices: Int32Array;
}

/** What is known of the rows; each has one element per row. */
export interface RowColumns {
  readonly row_numbers: BigInt64Array;
  readonly tokens?: Int32Array | undefined;
  readonly positions?: Int32Array | undefined;
  readonly row_mean?: Float64Array | undefined;
  readonly row_size?: Float64Array | undefined;
}

const DTYPES = {
  data: "f32",
  indices: "i32",
  indptr: "i64",
  row_numbers: "i64",
  tokens: "i32",
  positions: "i32",
  row_mean: "f64",
  row_size: "f64",
} as const;
type ArrayName = keyof typeof DTYPES;

/** One array of the file that is written. */
interface Part {
  readonly name: string;
  readonly dtype: (typeof DTYPES)[ArrayName];
  readonly shape: readonly number[];
  readonly bytes: number;
  readonly content: (write: Write) => Promise<void>;
}

/** Call `add` for the rows in their order, then `finish`; `close` in any case. */
export class CodesWriter {
  readonly #path: string;
  readonly #format: CodesFormat;
  readonly #latents: number;
  readonly #spools = new Map<ArrayName, Spool>();
  #rows = 0;
  #codes = 0;

  /** Throws UsageError where the name of the file does not say its format. */
  constructor(path: string, latents: number) {
    this.#path = path;
    this.#format = codesFormatOf(path);
    this.#latents = latents;
  }

  get rows(): number {
    return this.#rows;
  }

  get codes(): number {
    return this.#codes;
  }

  /** Appends rows; every call has the same columns. Throws SaettaError when the disk is full. */
  async add({ starts, data, indices }: CsrRows, columns: RowColumns): Promise<void> {
    const rows = starts.length - 1;
    const ends = BigInt64Array.from({ length: rows }, (_, row) => BigInt(this.#codes + starts[row + 1]!));
    if (this.#rows === 0) await this.#append("indptr", BigInt64Array.of(0n));
    await this.#append("indptr", ends);
    await this.#append("data", data);
    await this.#append("indices", indices);
    for (const [name, values] of Object.entries(columns) as [keyof RowColumns, ArrayBufferView | undefined][])
      if (values !== undefined) await this.#append(name, values);
    this.#rows += rows;
    this.#codes += data.length;
  }

  /**
   * Writes the file, whole or not at all; it replaces one that is there. `about`: what is said of
   * the codes in attributes or metadata.
   */
  async finish(about: Readonly<Record<string, string>>): Promise<void> {
    const parts = this.#parts();
    await atomicWrite(this.#path, (write) => FORMATS[this.#format](write, parts, { format: "csr", ...about }));
  }

  async close(): Promise<void> {
    for (const spool of this.#spools.values()) await spool.close();
  }

  async #append(name: ArrayName, values: ArrayBufferView): Promise<void> {
    const spool = this.#spools.get(name) ?? (await Spool.create(this.#path, name));
    this.#spools.set(name, spool);
    await spool.append(bytesOf(values));
  }

  /** Wide elements first, so that all begin on multiples of their size. */
  #parts(): Part[] {
    const shape = bytesOf(BigInt64Array.of(BigInt(this.#rows), BigInt(this.#latents)));
    const parts: Part[] = [
      { name: "shape", dtype: "i64", shape: [2], bytes: shape.length, content: (write) => write(shape) },
    ];
    for (const [name, spool] of this.#spools) {
      const dtype = DTYPES[name];
      const { bytes } = spool;
      parts.push({ name, dtype, shape: [bytes / BYTES[dtype]], bytes, content: (write) => spool.copyTo(write) });
    }
    return parts.sort((a, b) => BYTES[b.dtype] - BYTES[a.dtype]);
  }
}

type WriteFormat = (write: Write, parts: readonly Part[], about: Readonly<Record<string, string>>) => Promise<void>;

const FORMATS: Readonly<Record<CodesFormat, WriteFormat>> = {
  async npz(write, parts) {
    const archive = new ZipWriter(write);
    const add = (name: string, head: Uint8Array, bytes: number, content: Part["content"]) =>
      archive.add(`${name}.npy`, head.length + bytes, async (put) => {
        await put(head);
        await content(put);
      });
    await add("format", npyHead("bytes3", []), 3, (put) => put(Buffer.from("csr")));
    for (const { name, dtype, shape, bytes, content } of parts) await add(name, npyHead(dtype, shape), bytes, content);
    await archive.end();
  },

  async h5(write, parts, attributes) {
    const { head, addresses } = layOutHdf5("", { datasets: parts, attributes });
    await write(head);
    let at = head.length;
    for (const [i, { bytes, content }] of parts.entries()) {
      await write(new Uint8Array(addresses[i]! - at));
      await content(write);
      at = addresses[i]! + bytes;
    }
  },

  async safetensors(write, parts, metadata) {
    const typed = parts.map(({ name, dtype, shape }) => ({
      name,
      shape,
      dtype: ({ f32: "F32", f64: "F64", i32: "I32", i64: "I64" } as const)[dtype],
    }));
    await write(layOut(typed, metadata).head);
    for (const { content } of parts) await content(write);
  },
};

/** Bytes that are appended, and then read as often as wanted. */
class Spool {
  readonly #file: FileHandle;
  readonly #path: string;
  bytes = 0;

  private constructor(file: FileHandle, path: string) {
    this.#file = file;
    this.#path = path;
  }

  /** Next to `path`, which errors name; the file has no name. */
  static async create(path: string, name: string): Promise<Spool> {
    const own = `${path}.${process.pid}.${name}.tmp`;
    const file = await open(own, "w+").catch((cause: unknown) => refuseWriting(path, cause));
    await rm(own, { force: true });
    return new Spool(file, path);
  }

  async append(bytes: Uint8Array): Promise<void> {
    await appendTo(this.#file, bytes, this.#path);
    this.bytes += bytes.byteLength;
  }

  async copyTo(write: Write): Promise<void> {
    const piece = new Uint8Array(Math.min(this.bytes, 4 * 2 ** 20));
    for (let at = 0; at < this.bytes; at += piece.length) {
      const part = piece.subarray(0, Math.min(piece.length, this.bytes - at));
      await readFully(this.#file, part, at, this.#path);
      await write(part);
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}
