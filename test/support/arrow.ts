/** Arrow streams of activations, written by Apache's own library. */

import * as arrow from "apache-arrow";
import { encodeFloat16 } from "../../src/util/float16.ts";

/** Positions of a sequence, and the width. */
export const [T, d] = [3, 4];
/** The numbers of so many rows: 0, 1/4, 2/4, ... */
export const count = (rows: number, from = 0) => Array.from({ length: rows * d }, (_, i) => (from + i) / 4);

type Kind = "f16" | "f32" | "f64";
const FLOATS = {
  f16: () => new arrow.Float16(),
  f32: () => new arrow.Float32(),
  f64: () => new arrow.Float64(),
} as const;

export interface Lists {
  /** Lengths of the lists of tokens; default: all T. */
  readonly lengths?: readonly number[];
  readonly fixed?: boolean;
  /** Fixed lists within lists of any length. */
  readonly fixedInner?: boolean;
  readonly nulls?: boolean;
}

/**
 * A batch of `n` sequences [T, d] under `hook`, of the numbers from `from` on, with token_ids [T];
 * the lists begin with what is skipped, as in a slice.
 */
export function batch(
  kind: Kind,
  n: number,
  from: number,
  { lengths = Array.from({ length: n }, () => T), fixed = false, fixedInner = fixed, nulls = false }: Lists = {},
) {
  const rows = lengths.reduce((a, b) => a + b, 0);
  const skipped = fixed ? 0 : 2; // rows that no list refers to
  const numbers = [...Array.from({ length: skipped * d }, () => -1), ...count(rows, from)];
  const data = kind === "f64" ? Float64Array.from(numbers) : Float32Array.from(numbers);
  const bits = new Uint16Array(numbers.length);
  encodeFloat16(Float32Array.from(numbers), bits);
  const leaf = arrow.makeData({ type: FLOATS[kind](), data: (kind === "f16" ? bits : data) as never }) as arrow.Data;
  const list = (child: arrow.Data, sizes: readonly number[], first: number, isFixed: boolean): arrow.Data => {
    const field = new arrow.Field("item", child.type, true);
    const nullBitmap = nulls && !isFixed && sizes.length === n ? { nullBitmap: Uint8Array.of(0xfe), nullCount: 1 } : {};
    if (isFixed)
      return arrow.makeData({
        type: new arrow.FixedSizeList(sizes[0]!, field),
        child: child as never,
        length: sizes.length,
      }) as arrow.Data;
    let at = first;
    const valueOffsets = Int32Array.from([first, ...sizes.map((size) => (at += size))]);
    return arrow.makeData({
      type: new arrow.List(field),
      child: child as never,
      valueOffsets,
      length: sizes.length,
      ...nullBitmap,
    }) as arrow.Data;
  };
  const inner = list(
    leaf,
    Array.from({ length: rows + skipped }, () => d),
    0,
    fixedInner,
  );
  const acts = list(inner, lengths, skipped, fixed);
  const ids = arrow.makeData({
    type: new arrow.Int32(),
    data: Int32Array.from({ length: n * T }, (_, i) => from + i),
  }) as arrow.Data;
  const tokens = list(
    ids,
    Array.from({ length: n }, () => T),
    0,
    true,
  );
  const text = arrow.vectorFromArray(
    Array.from({ length: n }, (_, i) => `row ${i}`),
    new arrow.Utf8(),
  ).data[0]! as arrow.Data;
  const metadata = new Map([
    ["ARROW:extension:name", "datasets.features.features.Array2DExtensionType"],
    ["ARROW:extension:metadata", JSON.stringify([[T, d], kind])],
  ]);
  const fields = [
    new arrow.Field("text", text.type, true),
    new arrow.Field("blocks.8.hook_resid_post", acts.type, true, metadata),
    new arrow.Field("token_ids", tokens.type, true),
  ];
  return new arrow.RecordBatch(
    new arrow.Schema(fields),
    arrow.makeData({ type: new arrow.Struct(fields), children: [text, acts, tokens], length: n }),
  );
}

export const ipc = (batches: readonly arrow.RecordBatch[], format: "stream" | "file" = "stream") =>
  arrow.tableToIPC(new arrow.Table([...batches]), format);

/**
 * A batch of `n` fixed-shape tensors [T, d] of the numbers from `from` on, with input_ids and a
 * mask of bits, 0 at every fourth row from the second on.
 */
export function tensorBatch(n: number, from: number, description = JSON.stringify({ shape: [T, d] })) {
  const [rows, first] = [n * T, from / d];
  const fixed = (child: arrow.Data, length: number): arrow.Data =>
    arrow.makeData({
      type: new arrow.FixedSizeList(length, new arrow.Field("item", child.type, true)),
      child: child as never,
      length: n,
    }) as arrow.Data;
  const list = (child: arrow.Data): arrow.Data =>
    arrow.makeData({
      type: new arrow.List(new arrow.Field("item", child.type, true)),
      child: child as never,
      valueOffsets: Int32Array.from({ length: n + 1 }, (_, i) => i * T),
      length: n,
    }) as arrow.Data;
  const ids = Array.from({ length: rows }, (_, i) => first + i);
  const bits = new Uint8Array(Math.ceil(rows / 8));
  for (const [i, id] of ids.entries()) if (id % 4 !== 1) bits[i >> 3]! |= 1 << (i & 7);
  const make = (type: arrow.DataType, data: unknown, length: number) =>
    arrow.makeData({ type, data, length } as never) as unknown as arrow.Data;
  const acts = fixed(make(new arrow.Float32(), Float32Array.from(count(rows, from)), rows * d), T * d);
  const tokens = fixed(make(new arrow.Int32(), Int32Array.from(ids), rows), T);
  const mask = list(make(new arrow.Bool(), bits, rows));
  const metadata = new Map([
    ["ARROW:extension:name", "arrow.fixed_shape_tensor"],
    ["ARROW:extension:metadata", description],
  ]);
  const fields = [
    new arrow.Field("acts", acts.type, true, metadata),
    new arrow.Field("input_ids", tokens.type, true),
    new arrow.Field("attention_mask", mask.type, true),
  ];
  return new arrow.RecordBatch(
    new arrow.Schema(fields),
    arrow.makeData({ type: new arrow.Struct(fields), children: [acts, tokens, mask], length: n }),
  );
}
