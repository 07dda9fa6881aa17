/**
 * The schema of an Arrow stream: which columns it has, and which nodes and buffers of a batch
 * belong to each.
 */

import { FormatError } from "../util/errors.ts";
import { asObject, parseJsonText } from "../util/json.ts";
import type { FlatTable } from "./flatbuffer.ts";

/** `bool` is a bit each in the file, the lowest first. */
export type ArrowDType = "f64" | "f32" | "f16" | "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" | "bool";

/** A column; `dtype` is undefined where its values are no numbers of a fixed width. */
export interface ArrowColumn {
  readonly name: string;
  /** In words: "list of list of f32". */
  readonly type: string;
  readonly dtype: ArrowDType | undefined;
  /** How many lists are around the numbers. */
  readonly lists: number;
}

export interface ArrowField {
  readonly column: ArrowColumn;
  /** How many nodes and buffers of a batch are the column's. */
  readonly nodes: number;
  readonly buffers: number;
  /**
   * Its lists from the outside in: bytes of an offset, or the length that all have; `inside`: a
   * further axis of the list around it, with no node or buffer.
   */
  readonly lists: readonly ({ readonly offset: 4 | 8 } | { readonly length: number; readonly inside?: true })[];
}

/** The nodes, or the buffers, of several columns. */
export function sum(fields: readonly ArrowField[], what: "nodes" | "buffers"): number {
  return fields.reduce((total, field) => total + field[what], 0);
}

/** The columns of a schema. Throws FormatError for one whose place in a batch is not known. */
export function schemaOf(schema: FlatTable, path: string): readonly ArrowField[] {
  if (schema.short(0) !== 0) throw new FormatError("numbers are big-endian, which is not read", { where: path });
  return schema.tables(1).map((field) => fieldOf(field, 0, path));
}

/**
 * The types of Arrow by their number: words, and buffers beside the validity bits that every type
 * but null and union has.
 */
const PLAIN: Readonly<Record<number, readonly [words: string, buffers: number]>> = {
  ...{
    4: ["binary", 2],
    5: ["text", 2],
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
const [NULL, INT, FLOAT, BOOL, LIST, FIXED, MAP, LARGE, VIEW, LARGE_VIEW] = [1, 2, 3, 6, 12, 16, 17, 21, 25, 26];
const DEEPEST = 32;

function fieldOf(field: FlatTable, depth: number, path: string): ArrowField {
  const name = field.text(0);
  const kind = field.byte(2);
  const type = field.table(3);
  const children = depth > DEEPEST ? [] : field.tables(5).map((child) => fieldOf(child, depth + 1, path));
  const [nodes, buffers] = [1 + sum(children, "nodes"), sum(children, "buffers")];
  const other = (words: string, own: number): ArrowField => ({
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
    const own = { nodes, buffers: buffers + (kind === FIXED ? 1 : 2) };
    const shape = kind === FIXED && lists === 0 ? tensorShape(field, type?.int(0) ?? 0, name, path) : undefined;
    if (shape !== undefined) {
      const axes = shape.map((length, i) => (i === 0 ? { length } : { length, inside: true as const }));
      const column = { name, type: `tensor [${shape.join(", ")}] of ${words}`, dtype: inner, lists: shape.length };
      return { column, ...own, lists: axes };
    }
    const column = { name, type: `list of ${words}`, dtype: inner, lists: lists + 1 };
    return { column, ...own, lists: [list, ...child.lists] };
  }
  if (kind === NULL) return other("nothing", 0);
  if (kind === MAP) return other("map", 2);
  if (kind === VIEW || kind === LARGE_VIEW) return other("list view", 3);
  const plain = PLAIN[kind];
  if (plain !== undefined) return other(plain[0], 1 + plain[1]);
  throw new FormatError(`column "${name.slice(0, 40)}" is of a type of Arrow (${kind}) that is not read`, {
    where: path,
  });
}

function dtypeOf(kind: number, type: FlatTable): ArrowDType | undefined {
  if (kind === FLOAT) return (["f16", "f32", "f64"] as const)[type.short(0)];
  if (kind === BOOL) return "bool";
  if (kind !== INT) return undefined;
  const signed = type.byte(1) !== 0;
  return ({ 8: ["u8", "i8"], 16: ["u16", "i16"], 32: ["u32", "i32"], 64: ["u64", "i64"] } as const)[type.int(0) as 8]?.[
    signed ? 1 : 0
  ];
}

/** Far more than the description of a tensor takes. */
const MOST_DESCRIPTION = 64 * 1024;

/**
 * The shape of the extension type arrow.fixed_shape_tensor
 * (https://arrow.apache.org/docs/format/CanonicalExtensions.html), whose elements lie in a list of
 * `length`; undefined for other types. Throws FormatError where it contradicts itself, or its axes
 * are stored in another order.
 */
function tensorShape(field: FlatTable, length: number, name: string, path: string): readonly number[] | undefined {
  const metadata = new Map(field.tables(6).map((entry) => [entry.text(0), entry]));
  if (metadata.get("ARROW:extension:name")?.text(1) !== "arrow.fixed_shape_tensor") return undefined;
  const where = `${path}, column "${name.slice(0, 40)}"`;
  const refuse = (what: string): never => {
    throw new FormatError(what, { where });
  };
  const text = metadata.get("ARROW:extension:metadata")?.text(1) ?? "";
  if (text.length > MOST_DESCRIPTION) refuse("the description of its tensors is too long");
  const { shape, permutation } = asObject(parseJsonText(text, where), "the description of its tensors", where);
  if (!isCounts(shape) || shape.length === 0 || shape.length > 16 || shape.reduce((a, b) => a * b, 1) !== length)
    return refuse(`its tensors have no shape that takes ${length} numbers`);
  if (
    permutation !== undefined &&
    permutation !== null &&
    !(isCounts(permutation) && permutation.every((axis, i) => axis === i))
  )
    refuse("its tensors are stored in another order of their axes, which is not read");
  return shape;
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}
