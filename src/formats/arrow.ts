/**
 * Arrow's IPC streams (https://arrow.apache.org/docs/format/Columnar.html, "Serialization and IPC"), as Hugging Face datasets are saved: a schema, then record batches. Only
 * columns of numbers, and lists and lists of lists of them of one length, are read; they are arrays whose rows lie one after the other within a batch, and are read from there.
 */

import type { FileHandle } from "node:fs/promises";
import { readFully } from "../util/bytes.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, messageOf, SaettaError } from "../util/errors.ts";
import { checkRoom, checkRows } from "../util/rows.ts";
import { FlatBuffer, type FlatTable } from "./flatbuffer.ts";
import { openToRead } from "./open-file.ts";

export type ArrowDType = "f64" | "f32" | "f16" | "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64";

/** A column; `dtype` is undefined where its values are no numbers of a fixed width. */
export interface ArrowColumn {
  readonly name: string;
  /** In words: "list of list of f32". */
  readonly type: string;
  readonly dtype: ArrowDType | undefined;
  /** How many lists are around the numbers. */
  readonly lists: number;
}

/** A column seen as an array [n], [n, d] or [n, T, d]: rows are along its last axis, or are single numbers. */
export interface ArrowArray {
  readonly shape: readonly number[];
  readonly dtype: ArrowDType;
  /** Rows [first, first + count) as little-endian elements into the start of `into`. */
  read(first: number, count: number, into: Uint8Array): Promise<void>;
}

export interface ArrowFile {
  readonly path: string;
  readonly columns: readonly ArrowColumn[];
  /** `single`: every number is a row of its own. Throws FormatError when the column's lists differ in length, hold nulls, or leave their batch. */
  array(name: string, single?: boolean): Promise<ArrowArray>;
  close(): Promise<void>;
}

const BYTES: { readonly [D in ArrowDType]: number } = {
  f64: 8,
  f32: 4,
  f16: 2,
  i8: 1,
  i16: 2,
  i32: 4,
  i64: 8,
  u8: 1,
  u16: 2,
  u32: 4,
  u64: 8,
};

/** How Arrow's other format begins. */
const FILE_MAGIC = "ARROW1\0\0";
const CONTINUED = 0xffff_ffff;
const MOST_METADATA = 64 * 1024 * 1024;

/** Opens a file and walks over its messages. Throws FormatError naming file and byte. Close it. */
export async function openArrow(path: string): Promise<ArrowFile> {
  const { handle, size } = await openToRead(path);
  return closedOnFailure(handle, async () => {
    const { fields, batches } = await messages(handle, size, path);
    const columns = fields.map(({ column }) => column);
    return {
      path,
      columns,
      async array(name, single = false) {
        const at = columns.findIndex((column) => column.name === name);
        if (at < 0)
          throw new FormatError(
            `has no column "${name}", only ${columns.map((column) => `"${column.name}"`).join(", ")}`,
            { where: path },
          );
        return arrayOf(handle, path, fields, at, batches, single);
      },
      close: () => handle.close(),
    };
  });
}

interface Batch {
  /** Where its body starts. */
  readonly body: number;
  /** Length and nulls of each node; place and length of each buffer within the body. */
  readonly nodes: readonly (readonly [number, number])[];
  readonly buffers: readonly (readonly [number, number])[];
}

interface Field {
  readonly column: ArrowColumn;
  /** How many nodes and buffers of a batch are the column's. */
  readonly nodes: number;
  readonly buffers: number;
  /** Its lists from the outside in: bytes of an offset, or the length that all have. */
  readonly lists: readonly ({ readonly offset: 4 | 8 } | { readonly length: number })[];
}

async function messages(
  handle: FileHandle,
  size: number,
  path: string,
): Promise<{ fields: readonly Field[]; batches: readonly Batch[] }> {
  const refuse = (what: string, at: number): never => {
    throw new FormatError(`byte ${at}: ${what}`, { where: path });
  };
  if (size >= 8 && (await piece(handle, 0, 8, path)).toString("latin1") === FILE_MAGIC) {
    throw new FormatError("byte 0: is an Arrow file with an index (Feather), not a stream", {
      where: path,
      mend: "save the dataset with save_to_disk, or write it with pyarrow.ipc.new_stream",
    });
  }
  let at = 0;
  let fields: readonly Field[] | undefined;
  const batches: Batch[] = [];
  while (at + 8 <= size) {
    const head = await piece(handle, at, 8, path);
    if (head.readUInt32LE(0) !== CONTINUED) refuse("no message of an Arrow stream starts here", at);
    const length = head.readInt32LE(4);
    if (length === 0) break; // the end of the stream
    const body = at + 8 + length;
    if (length < 0 || length > MOST_METADATA || body > size)
      refuse(`a message of ${length} bytes passes the end of the file at ${size}`, at);
    const message = new FlatBuffer(await piece(handle, at + 8, length, path), path, at + 8).root();
    const bodyLength = message.long(3);
    if (body + bodyLength > size) refuse(`a batch ends at byte ${body + bodyLength}, but the file at ${size}`, at);
    const header = message.table(2);
    const kind = KINDS[message.byte(1)];
    if (header === undefined || kind === undefined) refuse("a message that is neither schema nor batch", at);
    else if (kind === "schema" && fields === undefined) fields = schemaOf(header, path);
    else if (kind === "batch" && fields !== undefined)
      batches.push(batchOf(header, body, bodyLength, fields, (what) => refuse(what, at)));
    else if (kind !== "dictionary") refuse(fields === undefined ? "a batch before the schema" : "a second schema", at);
    at = body + bodyLength;
  }
  if (fields === undefined) return refuse("the file has no schema", at);
  return { fields, batches };
}

const KINDS: Readonly<Record<number, "schema" | "dictionary" | "batch">> = { 1: "schema", 2: "dictionary", 3: "batch" };

function batchOf(
  header: FlatTable,
  body: number,
  length: number,
  fields: readonly Field[],
  refuse: (what: string) => never,
): Batch {
  if (header.has(3)) refuse("a compressed batch, which is not read");
  const [nodes, buffers] = [header.pairs(1), header.pairs(2)];
  const needed = { nodes: sum(fields, "nodes"), buffers: sum(fields, "buffers") };
  if (nodes.length !== needed.nodes || buffers.length !== needed.buffers) {
    refuse(
      `a batch of ${nodes.length} nodes and ${buffers.length} buffers, where the schema says ${needed.nodes} and ${needed.buffers}`,
    );
  }
  const beyond = buffers.find(([offset, bytes]) => offset + bytes > length);
  if (beyond !== undefined)
    refuse(`a buffer of ${beyond[1]} bytes at ${beyond[0]} passes the end of its batch, ${length}`);
  return { body, nodes, buffers };
}

function sum(fields: readonly Field[], what: "nodes" | "buffers"): number {
  return fields.reduce((total, field) => total + field[what], 0);
}

function schemaOf(schema: FlatTable, path: string): readonly Field[] {
  if (schema.short(0) !== 0) throw new FormatError("numbers are big-endian, which is not read", { where: path });
  return schema.tables(1).map((field) => fieldOf(field, 0, path));
}

/** The types of Arrow by their number: words, and buffers beside the validity bits that every type but null and union has. */
const PLAIN: Readonly<Record<number, readonly [words: string, buffers: number]>> = {
  ...{
    4: ["binary", 2],
    5: ["text", 2],
    6: ["bits", 1],
    7: ["decimal", 1],
    8: ["date", 1],
    9: ["time", 1],
    10: ["timestamp", 1],
  },
  ...{
    11: ["interval", 1],
    13: ["struct", 0],
    15: ["bytes", 1],
    18: ["duration", 1],
    19: ["binary", 2],
    20: ["text", 2],
  },
};
const [NULL, INT, FLOAT, LIST, FIXED, MAP, LARGE] = [1, 2, 3, 12, 16, 17, 21];
const DEEPEST = 32;

function fieldOf(field: FlatTable, depth: number, path: string): Field {
  const name = field.text(0);
  const kind = field.byte(2);
  const type = field.table(3);
  const children = depth > DEEPEST ? [] : field.tables(5).map((child) => fieldOf(child, depth + 1, path));
  const [nodes, buffers] = [1 + sum(children, "nodes"), sum(children, "buffers")];
  const other = (words: string, own: number): Field => ({
    column: { name, type: words, dtype: undefined, lists: 0 },
    nodes,
    buffers: buffers + own,
    lists: [],
  });
  if (field.has(4)) return { ...other("dictionary", 2), nodes: 1, buffers: 2 };
  const dtype = type && dtypeOf(kind, type);
  if (dtype !== undefined)
    return { column: { name, type: dtype, dtype, lists: 0 }, nodes, buffers: buffers + 2, lists: [] };
  const [child] = children;
  if ((kind === LIST || kind === LARGE || kind === FIXED) && child !== undefined && children.length === 1) {
    const list =
      kind === FIXED ? { length: type?.int(0) ?? 0 } : { offset: kind === LIST ? (4 as const) : (8 as const) };
    const { dtype: inner, lists, type: words } = child.column;
    const column = { name, type: `list of ${words}`, dtype: inner, lists: lists + 1 };
    return { column, nodes, buffers: buffers + (kind === FIXED ? 1 : 2), lists: [list, ...child.lists] };
  }
  if (kind === NULL) return other("nothing", 0);
  if (kind === MAP) return other("map", 2);
  const plain = PLAIN[kind];
  if (plain !== undefined) return other(plain[0], 1 + plain[1]);
  throw new FormatError(`column "${name.slice(0, 40)}" is of a type of Arrow (${kind}) that is not read`, {
    where: path,
  });
}

function dtypeOf(kind: number, type: FlatTable): ArrowDType | undefined {
  if (kind === FLOAT) return (["f16", "f32", "f64"] as const)[type.short(0)];
  if (kind !== INT) return undefined;
  const signed = type.byte(1) !== 0;
  return ({ 8: ["u8", "i8"], 16: ["u16", "i16"], 32: ["u32", "i32"], 64: ["u64", "i64"] } as const)[type.int(0) as 8]?.[
    signed ? 1 : 0
  ];
}

/** Rows of one batch: how many, and where the first of them is in the file. */
interface Run {
  readonly first: number;
  readonly rows: number;
  readonly at: number;
}

async function arrayOf(
  handle: FileHandle,
  path: string,
  fields: readonly Field[],
  index: number,
  batches: readonly Batch[],
  single: boolean,
): Promise<ArrowArray> {
  const field = fields[index]!;
  const { name, dtype, type } = field.column;
  const refuse = (what: string): never => {
    throw new FormatError(`column "${name}" (${type}) ${what}`, { where: path });
  };
  if (dtype === undefined) return refuse("holds no numbers, nor lists of them");
  const before = fields.slice(0, index);
  const [firstNode, firstBuffer] = [sum(before, "nodes"), sum(before, "buffers")];
  const inner: (number | undefined)[] = field.lists.map(() => undefined);
  const runs: Run[] = [];
  let [outer, rows] = [0, 0];
  for (const batch of batches) {
    const found = await batchArray(handle, path, batch, field, [firstNode, firstBuffer], inner, refuse);
    if (found.length === 0) continue;
    const count =
      found.length * (single ? inner : inner.slice(0, -1)).reduce<number>((product, size) => product * size!, 1);
    runs.push({ first: rows, rows: count, at: found.at });
    outer += found.length;
    rows += count;
  }
  const shape = [outer, ...inner.map((size) => size ?? 0)];
  const rowBytes = (single ? 1 : (inner.at(-1) ?? 1)) * BYTES[dtype];
  return {
    shape,
    dtype,
    read: (first, count, into) => readRuns(handle, path, runs, rows, rowBytes, first, count, into),
  };
}

/** The column's items in one batch, and where its numbers start in the file. -> inner: the lengths of its lists, which must be the same everywhere. */
async function batchArray(
  handle: FileHandle,
  path: string,
  { body, nodes, buffers }: Batch,
  { lists, column }: Field,
  [firstNode, firstBuffer]: readonly [number, number],
  inner: (number | undefined)[],
  refuse: (what: string) => never,
): Promise<{ readonly length: number; readonly at: number }> {
  const length = nodes[firstNode]![0];
  if (length === 0) return { length, at: body };
  // Items of the list that is looked at: `count` of them, from number `first` on.
  let [first, count, node, buffer] = [0, length, firstNode, firstBuffer];
  for (const [depth, list] of lists.entries()) {
    if (nodes[node]![1] !== 0) refuse("holds nulls");
    let size: number;
    if ("length" in list) {
      size = list.length;
      first *= size;
      buffer += 1;
    } else {
      const [at, bytes] = buffers[buffer + 1]!;
      if (!((first + count + 1) * list.offset <= bytes))
        refuse(`has ${bytes} bytes of offsets for ${first + count} lists`);
      const offsets = await piece(handle, body + at + first * list.offset, (count + 1) * list.offset, path);
      const found =
        uniform(offsets, list.offset) ?? refuse("has lists of different lengths, which make no rows of one width");
      ({ first, size } = found);
      buffer += 2;
    }
    inner[depth] ??= size;
    if (!(size > 0) || inner[depth] !== size) refuse(`has lists of ${size} beside those of ${inner[depth]}`);
    count *= size;
    node += 1;
  }
  const width = BYTES[column.dtype!];
  const [at, bytes] = buffers[buffer + 1]!;
  if (nodes[node]![1] !== 0) refuse("holds nulls");
  if (!((first + count) * width <= bytes)) refuse(`has ${bytes} bytes for ${first + count} numbers`);
  return { length, at: body + at + first * width };
}

/** The first offset, and the distance of each to the next; undefined when that is not always the same. */
function uniform(bytes: Buffer, width: 4 | 8): { readonly first: number; readonly size: number } | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const offset = (i: number): number =>
    width === 4 ? view.getInt32(4 * i, true) : Number(view.getBigInt64(8 * i, true));
  const [first, size] = [offset(0), offset(1) - offset(0)];
  for (let i = 1; i < bytes.byteLength / width; i++) if (offset(i) !== first + i * size) return undefined;
  return first < 0 ? undefined : { first, size };
}

async function readRuns(
  handle: FileHandle,
  path: string,
  runs: readonly Run[],
  rows: number,
  rowBytes: number,
  first: number,
  count: number,
  into: Uint8Array,
): Promise<void> {
  checkRows(first, count, rows);
  checkRoom(into, count, rowBytes);
  let [low, high] = [0, runs.length];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (runs[middle]!.first <= first) low = middle;
    else high = middle;
  }
  for (let done = 0; done < count; low++) {
    const run = runs[low]!;
    const from = first + done - run.first;
    const part = Math.min(count - done, run.rows - from);
    try {
      await readFully(handle, into.subarray(done * rowBytes, (done + part) * rowBytes), run.at + from * rowBytes, path);
    } catch (cause) {
      throw cause instanceof SaettaError
        ? cause
        : new SaettaError(`cannot be read (${messageOf(cause)})`, { where: path, cause });
    }
    done += part;
  }
}

async function piece(handle: FileHandle, at: number, length: number, path: string): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  await readFully(handle, bytes, at, path);
  return bytes;
}
