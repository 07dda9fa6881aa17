/**
 * Inputs and targets of a transcoder as one Source: row r is row r of the inputs followed by row r
 * of the targets. Order, batches, the hold-out and what is left out work on pairs as on any rows.
 */

import { bytesOf, float64Of } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { checkRoom } from "../util/rows.ts";
import { rowsToFloat32 } from "./convert.ts";
import { sameRows } from "./repeats.ts";
import { bytesPerRow, type Origin, type RowDType, type RowFormat, type Source } from "./source.ts";

/**
 * Pairs the rows of `x` (inputs) and `y` (targets, of any width), in the wider of their two dtypes,
 * exactly; f16 and bf16 become f32. Tokens, positions, mask and origin are those of `x`, or of `y`
 * where only that has them. Throws SaettaError when they have different numbers of rows, lengths of
 * sequences or tokens, or the same rows. Owns both sources: `close` closes them; the caller does
 * where this throws.
 */
export async function pairSources(x: Source, y: Source): Promise<Source> {
  checkShapes(x, y);
  await checkTokens(x, y);
  await checkDifferent(x, y);
  const format = { dIn: x.dIn, dOut: y.dIn, dtype: widerOf(x.dtype, y.dtype) };
  const stream = x.stream === "once" || y.stream === "once" ? "once" : (x.stream ?? y.stream);
  const tokens = x.tokens ?? y.tokens;
  const notes = [...(x.notes ?? []), ...(y.notes ?? []), ...notesOn(x, y)];
  return {
    ...format,
    description: `${x.description} -> ${y.description}`,
    paths: x.paths,
    targetPaths: y.paths,
    rows: x.rows,
    sequence: x.sequence ?? y.sequence,
    grain: Math.max(x.grain, y.grain),
    origin: originOf(x, y),
    ...(stream === undefined ? {} : { stream }),
    read: pairReader(x, y, format),
    tokens,
    notes,
    tokensProblem: tokens === undefined ? (x.tokensProblem ?? y.tokensProblem) : undefined,
    ...maskOf(x, y),
    locate: (row) => `${x.locate(row)} with its target, ${y.locate(row)}`,
    async close() {
      await x.close();
      await y.close();
    },
  };
}

/** The inputs [count, dIn] and targets [count, dOut] of `count` raw pairs, copied. */
export function splitPairs(
  raw: Uint8Array,
  format: RowFormat,
  count: number,
): { readonly x: Uint8Array; readonly y: Uint8Array } {
  const rowBytes = bytesPerRow(format);
  const inBytes = bytesPerRow({ ...format, dOut: 0 });
  const outBytes = rowBytes - inBytes;
  const [x, y] = [new Uint8Array(count * inBytes), new Uint8Array(count * outBytes)];
  for (let row = 0; row < count; row++) {
    const at = row * rowBytes;
    x.set(raw.subarray(at, at + inBytes), row * inBytes);
    y.set(raw.subarray(at + inBytes, at + rowBytes), row * outBytes);
  }
  return { x, y };
}

/** The narrowest dtype that holds the values of both. */
function widerOf(a: RowDType, b: RowDType): RowDType {
  if (a === b) return a;
  return a === "f64" || b === "f64" ? "f64" : "f32";
}

/** `count` elements as `to`, which holds every value of `from`. */
function widened(raw: Uint8Array, from: RowDType, to: RowDType, count: number): Uint8Array {
  if (from === to) return raw;
  const values = from === "f64" ? float64Of(raw) : rowsToFloat32(raw, from, count);
  return bytesOf(to === "f64" ? Float64Array.from(values) : values);
}

function pairReader(x: Source, y: Source, format: RowFormat): Source["read"] {
  const rowBytes = bytesPerRow(format);
  return async (first, count, into, signal) => {
    checkRoom(into, count, rowBytes);
    let at = 0;
    const parts = [x, y].map(async (source) => {
      const raw = new Uint8Array(count * bytesPerRow(source));
      await source.read(first, count, raw, signal);
      return widened(raw, source.dtype, format.dtype, count * source.dIn);
    });
    for (const part of await Promise.all(parts)) {
      const bytes = part.length / count;
      for (let row = 0; row < count; row++)
        into.set(part.subarray(row * bytes, (row + 1) * bytes), row * rowBytes + at);
      at += bytes;
    }
  };
}

const ROWS_PER_READ = 1 << 20;

function maskOf(x: Source, y: Source): Pick<Source, "mask"> {
  const [a, b] = [x.mask, y.mask];
  if (a === undefined && b === undefined) return {};
  if (a === undefined || b === undefined) return { mask: a ?? b };
  return {
    async mask(first, count) {
      const [there, also] = await Promise.all([a(first, count), b(first, count)]);
      return there.map((each, i) => each & also[i]!);
    },
  };
}

/** Where the tokens are from `y`, so is the token that starts every document. */
function originOf(x: Source, y: Source): Origin {
  const { startToken, tensor, ...rest } = y.origin;
  const start = x.tokens === undefined && y.tokens !== undefined ? startToken : x.origin.startToken;
  const { startToken: _, ...own } = x.origin;
  return {
    ...(Object.keys(own).length === 0 ? rest : own),
    ...(start === undefined ? {} : { startToken: start }),
    ...(tensor === undefined ? {} : { targetTensor: tensor }),
  };
}

function* notesOn(x: Source, y: Source): Generator<string> {
  const [model, other] = [x.origin.modelSha256, y.origin.modelSha256];
  if (model !== undefined && other !== undefined && model !== other)
    yield `${nameOf(x)} and ${nameOf(y)} were harvested from different models`;
}

function nameOf({ paths, description }: Source): string {
  return paths.length === 0 ? description : paths.join(", ");
}

function differ(x: Source, y: Source, what: string, mend: string): SaettaError {
  return new SaettaError(`does not go with ${nameOf(x)}: ${what}`, { where: nameOf(y), mend });
}

const AGAIN = "harvest both from the same text: saetta harvest --tensor A --tensor B";

function checkShapes(x: Source, y: Source): void {
  const words = (value: number) => value.toLocaleString("en-US");
  if (x.rows !== y.rows) throw differ(x, y, `${words(y.rows)} rows for ${words(x.rows)} inputs`, AGAIN);
  if (x.sequence !== undefined && y.sequence !== undefined && x.sequence !== y.sequence)
    throw differ(x, y, `sequences of ${words(y.sequence)} rows for inputs in sequences of ${words(x.sequence)}`, AGAIN);
}

/** Compares the token ids of all rows, where both have some. */
async function checkTokens(x: Source, y: Source): Promise<void> {
  for (let first = 0; x.tokens !== undefined && y.tokens !== undefined && first < x.rows; first += ROWS_PER_READ) {
    const count = Math.min(ROWS_PER_READ, x.rows - first);
    const [ids, others] = await Promise.all([x.tokens(first, count), y.tokens(first, count)]);
    const at = ids.findIndex((id, i) => id !== others[i]);
    if (at < 0) continue;
    throw new SaettaError(`has token ${others[at]}, but ${x.locate(first + at)} has token ${ids[at]}`, {
      where: y.locate(first + at),
      mend: AGAIN,
    });
  }
}

/** Rows that are their own targets make an autoencoder. */
async function checkDifferent(x: Source, y: Source): Promise<void> {
  if (x.dIn !== y.dIn || x.dtype !== y.dtype || x.stream !== undefined || y.stream !== undefined) return;
  if (!(await sameRows(x, y))) return;
  throw differ(
    x,
    y,
    "the targets are the inputs",
    "leave out --target to train an autoencoder, or name another tensor with --target-dataset",
  );
}
