/**
 * safetensors: 8 bytes, the length of the header (u64); the header, a JSON object name -> { dtype,
 * shape, data_offsets }, and "__metadata__" (strings only); the tensors, little-endian, row-major,
 * without holes (https://github.com/huggingface/safetensors, "Format").
 */

import type { FileHandle } from "node:fs/promises";
import { readFully } from "../util/bytes.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError } from "../util/errors.ts";
import { asObject, Fields, type JsonObject, parseJson } from "../util/json.ts";
import { openToRead } from "./open-file.ts";

/** Bytes of one element. */
export const SAFETENSORS_DTYPES = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
} as const;
export type SafetensorsDType = keyof typeof SAFETENSORS_DTYPES;

/** A tensor of a file; its data are the bytes [begin, end) of the file. */
export interface SafetensorsEntry {
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

export interface Safetensors {
  readonly path: string;
  readonly metadata: ReadonlyMap<string, string>;
  /** In the order of the data. */
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>;
  /** One tensor; a FormatError when there is none of that name. */
  entry(name: string): SafetensorsEntry;
  /** Its bytes. */
  read(name: string): Promise<Uint8Array>;
  /** For reads of parts of tensors, at the places that `tensors` gives. */
  readonly handle: FileHandle;
  close(): Promise<void>;
}

const MAX_HEADER = 16 * 1024 * 1024;
const METADATA = "__metadata__";

/**
 * Opens a file and checks its whole header: after this no read can leave the file. Throws
 * FormatError naming file, tensor and byte.
 */
export async function openSafetensors(path: string): Promise<Safetensors> {
  const { handle: file, size } = await openToRead(path);
  return closedOnFailure(file, async () => {
    const read = async (at: number, length: number) => {
      const bytes = new Uint8Array(length);
      await readFully(file, bytes, at, path);
      return bytes;
    };
    const { metadata, tensors } = await readSafetensorsHeader(read, size, path);
    const entryNamed = (name: string): SafetensorsEntry => {
      const entry = tensors.get(name);
      if (entry === undefined)
        throw new FormatError(`has no tensor "${name}", only ${listOf(tensors.keys())}`, { where: path });
      return entry;
    };
    return {
      path,
      metadata,
      tensors,
      handle: file,
      entry: entryNamed,
      async read(name) {
        const { begin, end } = entryNamed(name);
        const bytes = new Uint8Array(end - begin);
        await readFully(file, bytes, begin, path);
        return bytes;
      },
      close: () => file.close(),
    };
  });
}

/**
 * The header of a file of `size` bytes, checked whole. `read`: gives bytes of the file, which are
 * two pieces at its start.
 */
export async function readSafetensorsHeader(
  read: (at: number, length: number) => Promise<Uint8Array>,
  size: number,
  path: string,
): Promise<Pick<Safetensors, "metadata" | "tensors">> {
  const refuse = (what: string): never => {
    throw new FormatError(`${what}; this is no whole safetensors file`, { where: path });
  };
  if (size < 8) refuse(`has ${size} bytes, fewer than the 8 that state the length of the header`);
  const prefix = await read(0, 8);
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER))
    refuse(`byte 0: states a header of ${length} bytes, more than the ${MAX_HEADER} allowed`);
  const data = 8 + Number(length);
  if (data > size) refuse(`byte 0: states a header of ${length} bytes, but the file ends at byte ${size}`);
  const header = await read(8, Number(length));
  if (header[0] !== "{".charCodeAt(0)) refuse('byte 8: the header does not start with "{"');

  const object = asObject(parseJson(header, path), "the header", path);
  const names = Object.keys(object).filter((name) => name !== METADATA);
  const entries = names.map((name) => [name, entryOf(object, name, data, path)] as const);
  entries.sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let end = data;
  for (const [name, entry] of entries) {
    if (entry.begin < end)
      refuse(`tensor "${name}" starts at byte ${entry.begin}, inside the one before, which ends at ${end}`);
    if (entry.begin > end) refuse(`bytes ${end} to ${entry.begin}, before tensor "${name}", belong to no tensor`);
    end = entry.end;
  }
  if (end > size) refuse(`the tensors end at byte ${end}, but the file at byte ${size}`);
  if (end < size) refuse(`the tensors end at byte ${end}, but ${size - end} more bytes follow`);
  return { metadata: metadataOf(object, path), tensors: new Map(entries) };
}

function entryOf(header: JsonObject, name: string, data: number, path: string): SafetensorsEntry {
  const refuse = (what: string): never => {
    throw new FormatError(`tensor "${name}": ${what}`, { where: path });
  };
  const fields = new Fields(header[name], `tensor "${name}"`, path);
  const extra = Object.keys(fields.object).find((key) => !["dtype", "shape", "data_offsets"].includes(key));
  if (extra !== undefined) refuse(`unknown field "${extra}"`);
  const dtype = fields.string("dtype");
  if (!isDType(dtype)) return refuse(`unknown dtype "${dtype}"`);
  const shape = numbersOf(fields.get("shape")) ?? refuse("shape must be a list of whole numbers");
  const offsets = numbersOf(fields.get("data_offsets"));
  if (offsets?.length !== 2) return refuse("data_offsets must be two whole numbers");
  const [begin = 0, end = 0] = offsets;
  if (end < begin) refuse(`ends at byte ${data + end}, before it starts at ${data + begin}`);
  const length = shape.reduce((product, size) => product * size, SAFETENSORS_DTYPES[dtype]);
  if (length !== end - begin)
    refuse(`${dtype} [${shape.join(", ")}] takes ${length} bytes, but data_offsets span ${end - begin}`);
  return { dtype, shape, begin: data + begin, end: data + end };
}

function metadataOf(header: JsonObject, path: string): ReadonlyMap<string, string> {
  if (header[METADATA] === undefined) return new Map();
  const fields = new Fields(header[METADATA], METADATA, path);
  return new Map(Object.keys(fields.object).map((name) => [name, fields.string(name)]));
}

function isDType(name: string): name is SafetensorsDType {
  return Object.hasOwn(SAFETENSORS_DTYPES, name);
}

function numbersOf(value: unknown): number[] | undefined {
  if (!Array.isArray(value)) return undefined;
  const whole = value.filter((item): item is number => Number.isSafeInteger(item) && (item as number) >= 0);
  return whole.length === value.length ? whole : undefined;
}

function listOf(names: Iterable<string>): string {
  const all = [...names];
  const shown = all.slice(0, 8).map((name) => `"${name}"`);
  return `${shown.join(", ")}${all.length > shown.length ? ` and ${all.length - shown.length} more` : ""}`;
}

/**
 * A tensor to be written; `bytes` is called when its turn comes, so that only one is held at a
 * time.
 */
export interface SafetensorsPart {
  readonly name: string;
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  readonly bytes: () => Promise<Uint8Array>;
}

/**
 * Where everything stands in a file of these parts: its first bytes, where the data of each part
 * begin, and the size of the whole. `headBytes`: the least size of the first bytes.
 */
export function layOut(
  parts: readonly Omit<SafetensorsPart, "bytes">[],
  metadata: Readonly<Record<string, string>> = {},
  { headBytes = 0 }: { readonly headBytes?: number } = {},
): { readonly head: Uint8Array; readonly begins: readonly number[]; readonly size: number } {
  const header: Record<string, unknown> = Object.keys(metadata).length > 0 ? { [METADATA]: metadata } : {};
  const begins: number[] = [];
  let end = 0;
  for (const { name, dtype, shape } of parts) {
    if (name === METADATA || Object.hasOwn(header, name))
      throw new RangeError(`tensor "${name}" cannot be written twice`);
    begins.push(end);
    end += shape.reduce((product, size) => product * size, SAFETENSORS_DTYPES[dtype]);
    header[name] = { dtype, shape, data_offsets: [begins.at(-1), end] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const padded = Math.max(Math.ceil(text.byteLength / 8) * 8, headBytes - 8);
  const head = new Uint8Array(8 + padded).fill(" ".charCodeAt(0));
  new DataView(head.buffer).setBigUint64(0, BigInt(padded), true);
  head.set(text, 8);
  return { head, begins: begins.map((begin) => head.length + begin), size: head.length + end };
}

/**
 * Writes a whole file, in order, through `write`. Tensors stand in the order given, each on a
 * multiple of its element's size when wider ones come first.
 */
export async function writeSafetensors(
  write: (bytes: Uint8Array) => Promise<void>,
  parts: readonly SafetensorsPart[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const { head, begins, size } = layOut(parts, metadata);
  await write(head);
  for (const [i, { name, bytes }] of parts.entries()) {
    const data = await bytes();
    const length = (begins[i + 1] ?? size) - begins[i]!;
    if (data.byteLength !== length)
      throw new RangeError(`tensor "${name}" has ${data.byteLength} bytes, not ${length}`);
    await write(data);
  }
}
