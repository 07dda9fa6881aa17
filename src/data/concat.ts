/** Several sources, one after the other, as one. */

import { SaettaError } from "../util/errors.ts";
import { checkRoom, checkRows } from "../util/rows.ts";
import { bytesPerRow, type Origin, type Source } from "./source.ts";

/** Something with rows that is followed by more of its kind. */
interface HasRows {
  readonly rows: number;
}

/**
 * What a range of rows is of one part: its first row there, how many, and its place in the range.
 */
interface Piece<P extends HasRows> {
  readonly part: P;
  readonly at: number;
  readonly length: number;
  readonly done: number;
}

/** Finds rows in parts that follow one another. */
class Joined<P extends HasRows> {
  readonly rows: number;
  readonly #parts: readonly P[];
  readonly #starts: readonly number[];

  constructor(parts: readonly P[]) {
    let rows = 0;
    this.#parts = parts;
    this.#starts = parts.map((part) => {
      rows += part.rows;
      return rows - part.rows;
    });
    this.rows = rows;
  }

  /** The part that holds `row`, and the number of the row in it. */
  find(row: number): { readonly part: P; readonly at: number } {
    const index = this.#indexOf(row);
    return { part: this.#parts[index]!, at: row - this.#starts[index]! };
  }

  *pieces(from: number, count: number): Generator<Piece<P>> {
    checkRows(from, count, this.rows);
    for (let done = 0; done < count; ) {
      const { part, at } = this.find(from + done);
      const length = Math.min(count - done, part.rows - at);
      yield { part, at, length, done };
      done += length;
    }
  }

  #indexOf(row: number): number {
    let [low, high] = [0, this.#parts.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.#starts[middle]! <= row) low = middle;
      else high = middle;
    }
    return low;
  }
}

/** Reads the rows of the first part, then those of the second, and so on. */
export function rowReader(parts: readonly (HasRows & Pick<Source, "read">)[], rowBytes: number): Source["read"] {
  const joined = new Joined(parts);
  return async (from, count, into) => {
    checkRoom(into, count, rowBytes);
    for (const { part, at, length, done } of joined.pieces(from, count))
      await part.read(at, length, into.subarray(done * rowBytes, (done + length) * rowBytes));
  };
}

/** More notes of many files are only counted. */
const MOST_NOTES = 8;

/**
 * The rows of the first source, then those of the second, and so on. Width, dtype and the presence
 * of tokens must agree (SaettaError naming two files that do not); `sequence` and each field of
 * `origin` are kept where all agree. Owns the sources: close() closes them. `notes`: what else is
 * to be said of the files.
 */
export function concatSources(sources: readonly Source[], notes: readonly string[] = []): Source {
  const first = sources[0];
  if (first === undefined) throw new RangeError("no sources");
  const said = [...notes, ...sources.flatMap((source) => source.notes ?? [])];
  const more = said.length - MOST_NOTES;
  const all = more > 0 ? [...said.slice(0, MOST_NOTES), `${more} more notes of the same kinds`] : said;
  if (sources.length === 1) return notes.length === 0 ? first : { ...first, notes: all };
  for (const source of sources) agree(first, source);

  const joined = new Joined(sources);
  const { rows } = joined;
  const { dIn, dtype } = first;
  const tokensProblem = sources.find((source) => source.tokensProblem !== undefined)?.tokensProblem;
  const tokens: Source["tokens"] = async (from, count) => {
    const out = new Int32Array(count);
    for (const { part, at, length, done } of joined.pieces(from, count))
      if (part.tokens !== undefined) out.set(await part.tokens(at, length), done);
    return out;
  };
  const mask: Source["mask"] = async (from, count) => {
    const out = new Uint8Array(count).fill(1);
    for (const { part, at, length, done } of joined.pieces(from, count))
      if (part.mask !== undefined) out.set(await part.mask(at, length), done);
    return out;
  };

  return {
    description: `${sources.length} files, ${first.paths[0]} to ${sources.at(-1)?.paths.at(-1)}: ${rows.toLocaleString("en-US")} x ${dIn} ${dtype}`,
    paths: sources.flatMap(({ paths }) => paths),
    dIn,
    rows,
    dtype,
    sequence: sources.every(({ sequence }) => sequence === first.sequence) ? first.sequence : undefined,
    grain: Math.max(...sources.map(({ grain }) => grain)),
    origin: common(sources.map(({ origin }) => origin)),
    notes: all,
    tokensProblem,
    read: rowReader(sources, bytesPerRow(first)),
    tokens: first.tokens === undefined || tokensProblem !== undefined ? undefined : tokens,
    ...(sources.some((source) => source.mask !== undefined) ? { mask } : {}),
    locate(row) {
      const { part, at } = joined.find(row);
      return part.locate(at);
    },
    async close() {
      for (const source of sources) await source.close();
    },
  };
}

function agree(a: Source, b: Source): void {
  const differ = (what: string, mend: string): SaettaError =>
    new SaettaError(`${a.paths[0]} and ${b.paths[0]} do not go together: ${what}`, { mend });
  if (a.dIn !== b.dIn)
    throw differ(`rows of ${a.dIn} and of ${b.dIn} numbers`, "give files of the same model and tensor");
  if (a.dtype !== b.dtype) throw differ(`${a.dtype} and ${b.dtype}`, "convert one of them");
  const unread = a.tokensProblem ?? b.tokensProblem;
  if (unread === undefined && (a.tokens === undefined) !== (b.tokens === undefined)) {
    const [has, lacks] = a.tokens === undefined ? [b, a] : [a, b];
    throw differ(`${has.paths[0]} has tokens and ${lacks.paths[0]} has none`, "give all files their tokens, or none");
  }
}

function common(origins: readonly Origin[]): Origin {
  const kept = Object.entries(origins[0] ?? {}).filter(([key, value]) =>
    origins.every((origin) => origin[key as keyof Origin] === value),
  );
  const places = (of: "modelPlaces" | "tokenizerPlaces") => {
    const all = [...new Set(origins.flatMap((origin) => origin[of] ?? []))];
    return all.length === 0 ? {} : { [of]: all };
  };
  return { ...Object.fromEntries(kept), ...places("modelPlaces"), ...places("tokenizerPlaces") };
}
