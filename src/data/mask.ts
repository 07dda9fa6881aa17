/** Which rows of a source a run may use: one bit a row. */

import { SaettaError, UsageError } from "../util/errors.ts";
import type { Source } from "./source.ts";

/** A set of rows, 0 .. rows - 1, one bit each. */
export class RowSet {
  readonly rows: number;
  readonly #bits: Uint8Array;
  #size = 0;

  constructor(rows: number) {
    this.rows = rows;
    this.#bits = new Uint8Array(Math.ceil(rows / 8));
  }

  get size(): number {
    return this.#size;
  }

  has(row: number): boolean {
    return (this.#bits[Math.floor(row / 8)]! & (1 << (row % 8))) !== 0;
  }

  add(row: number): void {
    const byte = Math.floor(row / 8);
    const bit = 1 << (row % 8);
    if ((this.#bits[byte]! & bit) !== 0) return;
    this.#bits[byte]! |= bit;
    this.#size++;
  }

  /** How many of [first, first + count) are in the set. */
  countIn(first: number, count: number): number {
    if (this.#size === 0) return 0;
    let found = 0;
    for (let row = first; row < first + count; row++) if (this.has(row)) found++;
    return found;
  }
}

const ROWS_PER_READ = 1 << 20;

/** The rows that the source's own mask leaves out. */
export async function maskedRows({ rows, mask }: Source): Promise<RowSet> {
  const masked = new RowSet(rows);
  for (let first = 0; mask !== undefined && first < rows; first += ROWS_PER_READ) {
    const there = await mask(first, Math.min(ROWS_PER_READ, rows - first));
    for (let i = 0; i < there.length; i++) if (there[i] === 0) masked.add(first + i);
  }
  return masked;
}

/**
 * "start": rows of the token that starts every document; "none"; or the tokens to leave out,
 * "start" among them or not.
 */
export type ExcludeTokens = "start" | "none" | readonly (number | "start")[];

/** Positions within a context, counted from its first row that the mask does not leave out. */
export type ExcludePositions = "none" | readonly number[];

/**
 * The ids that `exclude` names. `startToken`: undefined where it is not known, and then left out.
 */
export function excludedIds(exclude: ExcludeTokens, startToken: number | undefined): ReadonlySet<number> {
  const named = exclude === "none" ? [] : typeof exclude === "string" ? [exclude] : exclude;
  return new Set(named.map((each) => (each === "start" ? startToken : each)).filter((id) => id !== undefined));
}

/**
 * The rows that `exclude` leaves out. Start tokens have massive norms (Sun et al. 2024, "Massive
 * activations in large language models"): kept, they would own the variance and the FVU.
 */
export async function excludedRows(source: Source, exclude: ExcludeTokens): Promise<RowSet> {
  const excluded = new RowSet(source.rows);
  if (exclude === "none") return excluded;
  if (source.tokens === undefined) {
    const { tokensProblem, origin, paths } = source;
    // A file that names its start token wants it left out.
    if (exclude === "start" && (tokensProblem === undefined || origin.startToken === undefined)) return excluded;
    const where = paths.join(", ");
    if (tokensProblem === undefined)
      throw new SaettaError("has no tokens, so none can be excluded", { where, mend: "leave out --exclude-tokens" });
    throw new SaettaError(`tokens are to be excluded, but cannot be read (${tokensProblem})`, {
      where,
      mend: "pass --exclude-tokens none to use all rows",
    });
  }
  if (exclude.includes("start") && source.origin.startToken === undefined) {
    throw new SaettaError("has tokens but does not say which of them starts a document (attribute start_token)", {
      where: source.paths.join(", "),
      mend: "name its id with --exclude-tokens ID, or pass --exclude-tokens none",
    });
  }
  const ids = excludedIds(exclude, source.origin.startToken);
  for (let first = 0; first < source.rows; first += ROWS_PER_READ) {
    const count = Math.min(ROWS_PER_READ, source.rows - first);
    const tokens = await source.tokens(first, count);
    for (let i = 0; i < count; i++) if (ids.has(tokens[i]!)) excluded.add(first + i);
  }
  return excluded;
}

/**
 * Adds the rows at the given positions of every context to `excluded`. Positions count from the
 * first row of a context that is not in `masked`, so that padding at its start moves them. Throws
 * UsageError where the data has no contexts, or a position lies beyond them.
 */
export async function excludedPositions(
  { rows, sequence, paths, tokens }: Source,
  positions: ExcludePositions,
  masked: RowSet,
  excluded: RowSet,
): Promise<void> {
  if (positions === "none") return;
  if (sequence === undefined) {
    throw new UsageError(
      "--exclude-positions: the positions of the rows are not known, for they are not in contexts of one length",
      {
        ...(paths.length === 0 ? {} : { where: paths.join(", ") }),
        mend: `give an array [sequences, positions, width]${tokens === undefined ? "" : ", or leave rows out by token with --exclude-tokens"}`,
      },
    );
  }
  const beyond = positions.find((position) => position >= sequence);
  if (beyond !== undefined) {
    throw new UsageError(`--exclude-positions: ${beyond} is beyond the contexts of ${sequence} rows`, {
      where: paths.join(", "),
      mend: `give positions from 0 to ${sequence - 1}`,
    });
  }
  for (let first = 0; first < rows; first += sequence) {
    const begin = contextStart(first, sequence, masked);
    for (const position of positions) if (begin + position < first + sequence) excluded.add(begin + position);
  }
}

/** The first row of the context at `first` that is not in `masked`; `first` where all are. */
export function contextStart(first: number, sequence: number, masked: RowSet): number {
  if (masked.size === 0) return first;
  for (let row = first; row < first + sequence; row++) if (!masked.has(row)) return row;
  return first;
}
