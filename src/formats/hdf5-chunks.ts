/**
 * Reads rows of a chunked dataset: finds the chunks that hold them, unpacks each off the event
 * loop, several at a time, and copies what is asked for.
 */

import { FormatError, messageOf, SaettaError } from "../util/errors.ts";
import { type Hdf5Bytes, readBlock } from "./hdf5-bytes.ts";
import { readChunkIndex } from "./hdf5-chunk-index.ts";
import type { ChunkLayout, StoredChunk } from "./hdf5-chunk-layout.ts";
import { type Filter, unfiltered } from "./hdf5-filters.ts";
import { type Slab, type SlabLayout, slabs } from "./hdf5-slabs.ts";

export interface ChunkedData {
  readonly layout: ChunkLayout;
  readonly filters: readonly Filter[];
  /** An element that was never written. */
  readonly fill: Uint8Array;
}

/**
 * Chunks that are read and unpacked at the same time: as many as Node has threads for it, within so
 * many bytes.
 */
const AT_ONCE = 4;
const AT_ONCE_BYTES = 256 << 20;
/** Unpacked chunks that are kept for the next read, which may begin inside of one. */
const KEPT_BYTES = 8 << 20;

type Three = readonly [outer: number, inner: number, width: number];

export class ChunkReader {
  readonly #file: Hdf5Bytes;
  readonly #name: string;
  readonly #data: ChunkedData;
  readonly #slabLayout: SlabLayout;
  /** Shape and chunks as [outer, inner, width], whatever the rank. */
  readonly #shape: Three;
  readonly #chunk: Three;
  readonly #kept = new Map<string, Uint8Array>();
  #index: ReturnType<typeof readChunkIndex> | undefined;

  constructor(file: Hdf5Bytes, name: string, data: ChunkedData, slabLayout: SlabLayout) {
    this.#file = file;
    this.#name = name;
    this.#data = data;
    this.#slabLayout = slabLayout;
    const three = (sizes: readonly number[]): Three => {
      const before = Array<number>(3 - slabLayout.unused - sizes.length).fill(1);
      return [...before, ...sizes, ...(slabLayout.unused === 1 ? [1] : [])] as unknown as Three;
    };
    this.#shape = three(data.layout.shape);
    this.#chunk = three(data.layout.chunk);
  }

  /** Rows [first, first + count) into the start of `into`. */
  async read(first: number, count: number, into: Uint8Array): Promise<void> {
    this.#index ??= readChunkIndex(this.#file, this.#data.layout);
    const at = await this.#index;
    for (const slab of slabs(this.#slabLayout, first, count)) {
      const places = [...this.#placesIn(slab)];
      const atOnce = Math.max(1, Math.min(AT_ONCE, Math.floor(AT_ONCE_BYTES / this.#data.layout.bytes)));
      for (let i = 0; i < places.length; i += atOnce) {
        const batch = places.slice(i, i + atOnce);
        await Promise.all(
          batch.map(async (place) => {
            const index = this.#indexOf(place);
            const stored = at(index);
            this.#copy(place, slab, stored && (await this.#unpacked(index, stored)), first, into);
          }),
        );
      }
    }
  }

  /** Chunks that hold something of the slab. */
  *#placesIn({ outer, inner }: Slab): Generator<Three> {
    const [co, ci, cw] = this.#chunk;
    for (let o = Math.floor(outer[0] / co); o * co < outer[1]; o++) {
      for (let i = Math.floor(inner[0] / ci); i * ci < inner[1]; i++) {
        for (let w = 0; w * cw < this.#shape[2]; w++) yield [o, i, w];
      }
    }
  }

  /** The place with as many axes as the dataset has. */
  #indexOf(place: Three): number[] {
    const rank = this.#data.layout.shape.length;
    return place.slice(3 - this.#slabLayout.unused - rank, 3 - this.#slabLayout.unused);
  }

  async #unpacked(index: readonly number[], { position, bytes, mask }: StoredChunk): Promise<Uint8Array> {
    const key = index.join();
    const kept = this.#kept.get(key);
    if (kept !== undefined) return kept;
    const { layout, filters } = this.#data;
    const where = `${this.#file.path}, byte ${position}`;
    const overEdge = index.some((at, axis) => (at + 1) * layout.chunk[axis]! > layout.shape[axis]!);
    const applied = overEdge && layout.edgesUnfiltered ? [] : filters;
    // What is stored without a filter is as long as it is; packed, a chunk of noise grows by a
    // little.
    if (bytes > 2 * layout.bytes + 1024)
      throw new FormatError(`chunk [${key}] of ${this.#name}: ${bytes} bytes hold ${layout.bytes}`, { where });
    const stored = await readBlock(this.#file, position, bytes, `chunk [${key}] of ${this.#name}`).catch(
      (cause: unknown) => {
        throw cause instanceof SaettaError
          ? cause
          : new SaettaError(`cannot be read (${messageOf(cause)})`, { where, cause });
      },
    );
    try {
      const data = await unfiltered(stored, applied, mask, layout.bytes);
      this.#keep(key, data);
      return data;
    } catch (cause) {
      throw new FormatError(`chunk [${key}] of ${this.#name} is damaged: ${messageOf(cause)}`, {
        where,
        mend: "write the file again or check it with h5py",
        cause,
      });
    }
  }

  #keep(key: string, data: Uint8Array): void {
    const most = Math.floor(KEPT_BYTES / this.#data.layout.bytes);
    if (most === 0) return;
    if (this.#kept.size >= most)
      for (const oldest of [...this.#kept.keys()].slice(0, this.#kept.size - most + 1)) this.#kept.delete(oldest);
    this.#kept.set(key, data);
  }

  /**
   * What the chunk at `place` and the slab have in common; `chunk` is undefined where it was never
   * written.
   */
  #copy(
    [o, i, w]: Three,
    { outer, inner }: Slab,
    chunk: Uint8Array | undefined,
    first: number,
    into: Uint8Array,
  ): void {
    const [co, ci, cw] = this.#chunk;
    const width = this.#shape[2];
    const { fill } = this.#data;
    const size = fill.length;
    const length = Math.min(cw, width - w * cw) * size;
    const isZero = fill.every((byte) => byte === 0);
    for (let y = Math.max(outer[0], o * co); y < Math.min(outer[1], (o + 1) * co); y++) {
      for (let x = Math.max(inner[0], i * ci); x < Math.min(inner[1], (i + 1) * ci); x++) {
        const to = ((y * this.#slabLayout.inner + x - first) * width + w * cw) * size;
        const from = ((y - o * co) * ci + (x - i * ci)) * cw * size;
        if (chunk !== undefined) into.set(chunk.subarray(from, from + length), to);
        else if (isZero) into.fill(0, to, to + length);
        else for (let at = to; at < to + length; at += size) into.set(fill, at);
      }
    }
  }
}
