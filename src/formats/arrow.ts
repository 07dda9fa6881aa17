/**
 * Arrow's IPC streams (https://arrow.apache.org/docs/format/Columnar.html, "Serialization and
 * IPC"), as Hugging Face datasets are saved: a schema, then record batches. Only columns of
 * numbers, and lists and lists of lists of them of one length, are read; they are arrays whose rows
 * lie one after the other within a batch, and are read from there.
 */

import type { FileHandle } from "node:fs/promises";
import { BYTES, readFully } from "../util/bytes.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, messageOf, SaettaError } from "../util/errors.ts";
import { checkRoom, checkRows } from "../util/rows.ts";
import { type ArrowColumn, type ArrowDType, type ArrowField, schemaOf, sum } from "./arrow-schema.ts";
import { FlatBuffer, type FlatTable } from "./flatbuffer.ts";
import { openToRead } from "./open-file.ts";

/**
 * A column seen as an array [n], [n, d] or [n, T, d]: rows are along its last axis, or are single
 * numbers.
 */
export interface ArrowArray {
  readonly shape: readonly number[];
  readonly dtype: ArrowDType;
  /** Rows [first, first + count) as little-endian elements into the start of `into`. */
  read(first: number, count: number, into: Uint8Array): Promise<void>;
}

export type { ArrowColumn, ArrowDType };

export interface ArrowFile {
  readonly path: string;
  readonly columns: readonly ArrowColumn[];
  /**
   * `single`: every number is a row of its own. Throws FormatError when the column's lists differ
   * in length, hold nulls, or leave their batch.
   */
  array(name: string, single?: boolean): Promise<ArrowArray>;
  close(): Promise<void>;
}

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

interface RecordBatch {
  /** Where its body starts. */
  readonly body: number;
  /** Length and nulls of each node; place and length of each buffer within the body. */
  readonly nodes: readonly (readonly [number, number])[];
  readonly buffers: readonly (readonly [number, number])[];
}

async function messages(
  handle: FileHandle,
  size: number,
  path: string,
): Promise<{ fields: readonly ArrowField[]; batches: readonly RecordBatch[] }> {
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
  let fields: readonly ArrowField[] | undefined;
  const batches: RecordBatch[] = [];
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
  fields: readonly ArrowField[],
  refuse: (what: string) => never,
): RecordBatch {
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

/**
 * Rows of one batch: how many, and where the first of them is in the file; of booleans `at` is the
 * byte of bit 0, and the first is bit `bit`.
 */
interface Run {
  readonly first: number;
  readonly rows: number;
  readonly at: number;
  readonly bit: number;
}

async function arrayOf(
  handle: FileHandle,
  path: string,
  fields: readonly ArrowField[],
  index: number,
  batches: readonly RecordBatch[],
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
    runs.push({ first: rows, rows: count, at: found.at, bit: found.bit });
    outer += found.length;
    rows += count;
  }
  const shape = [outer, ...inner.map((size) => size ?? 0)];
  const rowBytes = (single ? 1 : (inner.at(-1) ?? 1)) * BYTES[dtype];
  const stored = { handle, path, runs, rows, rowBytes, isBits: dtype === "bool" };
  return { shape, dtype, read: (first, count, into) => readRuns(stored, first, count, into) };
}

/**
 * The column's items in one batch, and where its numbers start in the file. -> inner: the lengths
 * of its lists, which must be the same everywhere.
 */
async function batchArray(
  handle: FileHandle,
  path: string,
  { body, nodes, buffers }: RecordBatch,
  { lists, column }: ArrowField,
  [firstNode, firstBuffer]: readonly [number, number],
  inner: (number | undefined)[],
  refuse: (what: string) => never,
): Promise<Pick<Run, "at" | "bit"> & { readonly length: number }> {
  const length = nodes[firstNode]![0];
  if (length === 0) return { length, at: body, bit: 0 };
  // Items of the list that is looked at: `count` of them, from number `first` on.
  let [first, count, node, buffer] = [0, length, firstNode, firstBuffer];
  for (const [depth, list] of lists.entries()) {
    const inside = "inside" in list;
    if (!inside && nodes[node]![1] !== 0) refuse("holds nulls");
    let size: number;
    if ("length" in list) {
      size = list.length;
      first *= size;
      if (!inside) buffer += 1;
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
    if (!inside) node += 1;
  }
  const isBits = column.dtype === "bool";
  const width = isBits ? 1 / 8 : BYTES[column.dtype!];
  const [at, bytes] = buffers[buffer + 1]!;
  if (nodes[node]![1] !== 0) refuse("holds nulls");
  if (!((first + count) * width <= bytes)) refuse(`has ${bytes} bytes for ${first + count} numbers`);
  return isBits ? { length, at: body + at, bit: first } : { length, at: body + at + first * width, bit: 0 };
}

/**
 * The first offset, and the distance of each to the next; undefined when that is not always the
 * same.
 */
function uniform(bytes: Buffer, width: 4 | 8): { readonly first: number; readonly size: number } | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const offset = (i: number): number =>
    width === 4 ? view.getInt32(4 * i, true) : Number(view.getBigInt64(8 * i, true));
  const [first, size] = [offset(0), offset(1) - offset(0)];
  for (let i = 1; i < bytes.byteLength / width; i++) if (offset(i) !== first + i * size) return undefined;
  return first < 0 ? undefined : { first, size };
}

/** The rows of a column in all batches. */
interface Stored {
  readonly handle: FileHandle;
  readonly path: string;
  readonly runs: readonly Run[];
  readonly rows: number;
  readonly rowBytes: number;
  readonly isBits: boolean;
}

async function readRuns(
  { handle, path, runs, rows, rowBytes, isBits }: Stored,
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
    const to = into.subarray(done * rowBytes, (done + part) * rowBytes);
    try {
      if (isBits) await readBits(handle, run.at, run.bit + from * rowBytes, to, path);
      else await readFully(handle, to, run.at + from * rowBytes, path);
    } catch (cause) {
      throw cause instanceof SaettaError
        ? cause
        : new SaettaError(`cannot be read (${messageOf(cause)})`, { where: path, cause });
    }
    done += part;
  }
}

/**
 * -> to: a byte, 0 or 1, for each bit from number `first` on of the bits that start at byte `at`.
 */
async function readBits(handle: FileHandle, at: number, first: number, to: Uint8Array, path: string): Promise<void> {
  const byte = Math.floor(first / 8);
  const bits = await piece(handle, at + byte, Math.ceil((first + to.length) / 8) - byte, path);
  for (let i = 0, bit = first - 8 * byte; i < to.length; i++, bit++) to[i] = (bits[bit >> 3]! >> (bit & 7)) & 1;
}

async function piece(handle: FileHandle, at: number, length: number, path: string): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  await readFully(handle, bytes, at, path);
  return bytes;
}
