/** Log lines as columns of numbers, and any part of them in few pieces. */

import { flatValues } from "../run-files/metrics.ts";
import type { Scale, Series, SeriesMetric } from "./api.ts";

/** Columns that place a line; all others are metrics. */
const PLACES = ["step", "tokens", "elapsed_s"] as const;
const FIRST_ROOM = 256;

/** What is kept of a run at most: a file can hold anything. */
export interface ColumnLimits {
  readonly lines: number;
  readonly metrics: number;
  readonly nameLength: number;
}

const LIMITS: ColumnLimits = { lines: 1_000_000, metrics: 64, nameLength: 80 };

type Place = (typeof PLACES)[number];

export class Columns {
  readonly #limits: ColumnLimits;
  readonly #metrics = new Map<string, Float32Array>();
  #places: Readonly<Record<Place, Float64Array>> = emptyPlaces();
  #room = FIRST_ROOM;
  #lines = 0;
  #truncations = 0;

  constructor(limits: Partial<ColumnLimits> = {}) {
    this.#limits = { ...LIMITS, ...limits };
  }

  get lines(): number {
    return this.#lines;
  }

  /** Grows when lines that were there are so no longer. */
  get truncations(): number {
    return this.#truncations;
  }

  get full(): boolean {
    return this.#lines >= this.#limits.lines;
  }

  /**
   * Adds a line. One without a step, or beyond the limits, is left out; one whose step was reached
   * before replaces what came from there on.
   */
  add(line: Readonly<Record<string, unknown>>): void {
    const { step } = line;
    // Numbers that no counter reaches have no mean.
    if (typeof step !== "number" || !Number.isSafeInteger(step)) return;
    if (this.#lines > 0 && step <= this.#places.step[this.#lines - 1]!) {
      this.#lines = this.#lowerBound(step);
      this.#truncations++;
    }
    if (this.full) return;
    if (this.#lines === this.#room) this.#grow();
    const at = this.#lines++;
    for (const place of PLACES) this.#places[place][at] = numberOf(line[place]);
    for (const column of this.#metrics.values()) column[at] = Number.NaN;
    for (const [name, value] of flatValues(line)) {
      if (isPlace(name) || (typeof value !== "number" && value !== null)) continue;
      const column = this.#metrics.get(name) ?? this.#newMetric(name);
      if (column !== undefined) column[at] = numberOf(value);
    }
  }

  clear(): void {
    this.#metrics.clear();
    this.#places = emptyPlaces();
    this.#room = FIRST_ROOM;
    this.#lines = 0;
    this.#truncations++;
  }

  /** Lines [begin, end) of run `run` in at most `points` pieces of equal width in steps. */
  pieces(run: string, points: number, scale: Scale = "linear", begin = 0, end = this.#lines): Series {
    const bounds = this.#bounds(begin, end, points, scale);
    const whole = bounds.length - 1 === end - begin; // one line a piece
    const metrics = Array.from(this.#metrics, ([name, column]): SeriesMetric => {
      const mean = means(column, bounds);
      return whole
        ? { name, mean }
        : { name, mean, min: extremes(column, bounds, Math.min), max: extremes(column, bounds, Math.max) };
    });
    const { step, tokens, elapsed_s } = this.#places;
    return {
      run,
      step: means(step, bounds).map(Number),
      tokens: means(tokens, bounds),
      elapsed_s: means(elapsed_s, bounds),
      metrics,
    };
  }

  /** The last finite value of every metric. */
  newest(): [name: string, value: number][] {
    return Array.from(this.#metrics, ([name, column]): [string, number] => {
      let at = this.#lines - 1;
      while (at > 0 && !Number.isFinite(column[at]!)) at--;
      return [name, short(column[at] ?? Number.NaN)];
    }).filter(([, value]) => Number.isFinite(value));
  }

  /**
   * The lines whose step is in [from, to], with one more on either side, so that a curve goes on
   * beyond the edges.
   */
  range(from: number, to: number): readonly [begin: number, end: number] {
    const begin = this.#lowerBound(from);
    let end = this.#lowerBound(to);
    while (end < this.#lines && this.#places.step[end]! <= to) end++;
    return [Math.max(0, begin - 1), Math.min(this.#lines, end + 1)];
  }

  /** The first line whose step is at least `step`. */
  #lowerBound(step: number): number {
    let low = 0;
    let high = this.#lines;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#places.step[middle]! < step) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /**
   * Where the pieces begin, and where the last one ends. The last line is a piece of its own: where
   * a run is now is no mean.
   */
  #bounds(begin: number, end: number, points: number, scale: Scale): number[] {
    if (end - begin <= Math.max(points, 2)) return Array.from({ length: end - begin + 1 }, (_, i) => begin + i);
    const { step } = this.#places;
    const place = scale === "log" ? (value: number) => Math.log(Math.max(1, value)) : (value: number) => value;
    const first = place(step[begin]!);
    const width = (place(step[end - 1]!) - first) / (points - 1) || 1;
    const bounds = [begin];
    let last = 0;
    for (let i = begin; i < end - 1; i++) {
      const piece = Math.min(points - 2, Math.floor((place(step[i]!) - first) / width));
      if (piece > last) bounds.push(i);
      last = Math.max(last, piece);
    }
    bounds.push(end - 1, end);
    return bounds;
  }

  #newMetric(name: string): Float32Array | undefined {
    if (this.#metrics.size >= this.#limits.metrics || name.length > this.#limits.nameLength) return undefined;
    const column = new Float32Array(this.#room).fill(Number.NaN);
    this.#metrics.set(name, column);
    return column;
  }

  #grow(): void {
    this.#room *= 2;
    this.#places = {
      step: longer(this.#places.step, this.#room),
      tokens: longer(this.#places.tokens, this.#room),
      elapsed_s: longer(this.#places.elapsed_s, this.#room),
    };
    for (const [name, column] of this.#metrics) {
      const wider = new Float32Array(this.#room);
      wider.set(column);
      this.#metrics.set(name, wider);
    }
  }
}

function emptyPlaces(): Record<Place, Float64Array> {
  return {
    step: new Float64Array(FIRST_ROOM),
    tokens: new Float64Array(FIRST_ROOM),
    elapsed_s: new Float64Array(FIRST_ROOM),
  };
}

function longer(column: Float64Array, room: number): Float64Array {
  const wider = new Float64Array(room);
  wider.set(column);
  return wider;
}

function isPlace(name: string): boolean {
  return (PLACES as readonly string[]).includes(name);
}

function numberOf(value: unknown): number {
  return typeof value === "number" ? value : Number.NaN;
}

type Column = Float64Array | Float32Array;

function means(column: Column, bounds: readonly number[]): (number | null)[] {
  return eachPiece(bounds, (begin, end) => {
    let sum = 0;
    let count = 0;
    for (let i = begin; i < end; i++) {
      if (!Number.isFinite(column[i]!)) continue;
      sum += column[i]!;
      count++;
    }
    return count === 0 ? null : short(sum / count);
  });
}

function extremes(
  column: Column,
  bounds: readonly number[],
  pick: (a: number, b: number) => number,
): (number | null)[] {
  return eachPiece(bounds, (begin, end) => {
    let most: number | undefined;
    for (let i = begin; i < end; i++) {
      const value = column[i]!;
      if (Number.isFinite(value)) most = most === undefined ? value : pick(most, value);
    }
    return most === undefined ? null : short(most);
  });
}

function eachPiece<T>(bounds: readonly number[], value: (begin: number, end: number) => T): T[] {
  return bounds.slice(1).map((end, i) => value(bounds[i]!, end));
}

/** What a curve can show: 7 digits of what is no whole number. */
function short(value: number): number {
  return Number.isSafeInteger(value) ? value : Number(value.toPrecision(7));
}
