/**
 * Reading FlatBuffers (https://flatbuffers.dev, "Internals"), with every place checked before it is
 * read.
 */

import { FormatError } from "../util/errors.ts";

/** Far more than any table of a file that is read here has. */
const MOST_ITEMS = 1_000_000;

/**
 * A table of a buffer. Fields are named by their number in the schema; one that is not there has
 * the default.
 */
export class FlatTable {
  readonly #buffer: FlatBuffer;
  readonly #at: number;
  readonly #fields: number;
  readonly #size: number;

  constructor(buffer: FlatBuffer, at: number) {
    this.#buffer = buffer;
    this.#at = at;
    this.#fields = at - buffer.view(at, 4).getInt32(0, true);
    this.#size = buffer.view(this.#fields, 4).getUint16(0, true);
  }

  /** Where the field is, with `bytes` of it in the buffer; undefined when it is not there. */
  #place(field: number, bytes: number): DataView | undefined {
    const slot = 4 + 2 * field;
    if (slot + 2 > this.#size) return undefined;
    const offset = this.#buffer.view(this.#fields + slot, 2).getUint16(0, true);
    return offset === 0 ? undefined : this.#buffer.view(this.#at + offset, bytes);
  }

  #target(field: number): number | undefined {
    const place = this.#place(field, 4);
    return place && this.#buffer.offsetOf(place) + place.getUint32(0, true);
  }

  byte(field: number): number {
    return this.#place(field, 1)?.getUint8(0) ?? 0;
  }

  short(field: number): number {
    return this.#place(field, 2)?.getInt16(0, true) ?? 0;
  }

  int(field: number): number {
    return this.#place(field, 4)?.getInt32(0, true) ?? 0;
  }

  /** 64 bits that must be a whole number from 0 up to 2^53. */
  long(field: number): number {
    const place = this.#place(field, 8);
    return place === undefined ? 0 : this.#buffer.count(place, 0);
  }

  has(field: number): boolean {
    return this.#place(field, 1) !== undefined;
  }

  table(field: number): FlatTable | undefined {
    const at = this.#target(field);
    return at === undefined ? undefined : new FlatTable(this.#buffer, at);
  }

  text(field: number): string {
    const at = this.#target(field);
    if (at === undefined) return "";
    const length = this.#buffer.view(at, 4).getUint32(0, true);
    const view = this.#buffer.view(at + 4, length);
    return Buffer.from(view.buffer, view.byteOffset, length).toString("utf8");
  }

  tables(field: number): FlatTable[] {
    return this.#vector(field, 4, (view, at) => {
      const start = this.#buffer.offsetOf(view) + at;
      return new FlatTable(this.#buffer, start + view.getUint32(at, true));
    });
  }

  /** Structs of two 64-bit numbers, each from 0 up to 2^53. */
  pairs(field: number): (readonly [number, number])[] {
    return this.#vector(
      field,
      16,
      (view, at) => [this.#buffer.count(view, at), this.#buffer.count(view, at + 8)] as const,
    );
  }

  #vector<T>(field: number, bytes: number, item: (view: DataView, at: number) => T): T[] {
    const at = this.#target(field);
    if (at === undefined) return [];
    const length = this.#buffer.view(at, 4).getUint32(0, true);
    if (length > MOST_ITEMS) this.#buffer.refuse(at, `a list of ${length} items is too long`);
    const view = this.#buffer.view(at + 4, length * bytes);
    return Array.from({ length }, (_, i) => item(view, i * bytes));
  }
}

export class FlatBuffer {
  readonly #bytes: Uint8Array;
  readonly #where: string;
  readonly #base: number;

  /** `where` names the file in errors, and `base` is the place of the first byte in it. */
  constructor(bytes: Uint8Array, where: string, base: number) {
    this.#bytes = bytes;
    this.#where = where;
    this.#base = base;
  }

  root(): FlatTable {
    return new FlatTable(this, this.view(0, 4).getUint32(0, true));
  }

  view(at: number, bytes: number): DataView {
    if (!(at >= 0 && at + bytes <= this.#bytes.byteLength))
      this.refuse(Math.max(0, at), `refers to ${bytes} bytes that are not in its message`);
    return new DataView(this.#bytes.buffer, this.#bytes.byteOffset + at, bytes);
  }

  offsetOf(view: DataView): number {
    return view.byteOffset - this.#bytes.byteOffset;
  }

  count(view: DataView, at: number): number {
    const value = Number(view.getBigInt64(at, true));
    if (!Number.isSafeInteger(value) || value < 0)
      this.refuse(this.offsetOf(view) + at, `${value} is no size or place`);
    return value;
  }

  refuse(at: number, what: string): never {
    throw new FormatError(`byte ${this.#base + at}: ${what}`, { where: this.#where });
  }
}
