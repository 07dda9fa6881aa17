/**
 * The order of a run to which files were appended (docs/decisions/0063). Rows that were there
 * before keep their order; the rows of the appended files are an epoch of their own, and every
 * later epoch visits all rows.
 */

import { heldOut, type Range } from "./holdout.ts";
import type { RowSet } from "./mask.ts";
import { type Geometry, Order, type OrderOptions, type RowOrder, type Window } from "./order.ts";
import type { Source } from "./source.ts";

/** Files that were appended to a run's data. */
export interface Appended {
  /** Rows of the source before them. */
  readonly rows: number;
  /** Grain of the source before them, on which the order of its rows depends. */
  readonly grain: number;
  /** The epoch that visits the appended rows alone; every later one visits all. */
  readonly epoch: number;
}

/** The order of all epochs; `appended` oldest first. */
export function orderOf(
  geometry: Geometry,
  excluded: RowSet,
  options: OrderOptions,
  appended: readonly Appended[] = [],
): RowOrder & { readonly rowsPerEpoch: number } {
  const all = new Order(geometry, excluded, options);
  if (appended.length === 0) return all;
  // Of each epoch number from which the rows change: its order.
  const stages: { readonly from: number; readonly order: Order }[] = [];
  for (const [i, { rows, grain, epoch }] of appended.entries()) {
    const next = appended[i + 1];
    const joined = { ...geometry, rows: next?.rows ?? geometry.rows, grain: next?.grain ?? geometry.grain };
    if (i === 0) stages.push({ from: 0, order: new Order({ ...geometry, rows, grain }, excluded, options) });
    stages.push({ from: epoch, order: new Order({ ...joined, first: rows }, excluded, options) });
    stages.push({ from: epoch + 1, order: next === undefined ? all : new Order(joined, excluded, options) });
  }
  const stageOf = (epoch: number): number => stages.findLastIndex(({ from }) => from <= epoch);
  const orders = stages.map(({ order }) => order);
  return {
    rowsPerEpoch: all.rowsPerEpoch,
    rowsIn: (epoch) => orders[stageOf(epoch)]!.rowsPerEpoch,
    // Of different stages never the same window, so there are at least two.
    windows: orders.reduce((sum, { windows }) => sum + windows, 0),
    windowRows: Math.max(...orders.map(({ windowRows }) => windowRows)),
    window(epoch, position): Window {
      const stage = stageOf(epoch);
      const window = orders[stage]!.window(epoch, position);
      return { ...window, key: `${stage}: ${window.key}` };
    },
    isExcluded: (row) => all.isExcluded(row),
    visited: (first, count) => all.visited(first, count),
  };
}

/**
 * The hold-out, of rows that are not in `gone`: that of the rows before each append, which training
 * has not seen, and some of the sequences that were appended.
 */
export function heldOutOf(
  source: Pick<Source, "rows" | "sequence" | "computed">,
  fraction: number,
  seed: number,
  appended: readonly Appended[] = [],
  gone?: RowSet,
): Range[] {
  const last = appended.at(-1);
  if (last === undefined) return heldOut(source, fraction, seed, gone);
  const before = heldOutOf({ ...source, rows: last.rows }, fraction, seed, appended.slice(0, -1), gone);
  const added = heldOut(source, fraction, seed, gone).flatMap(({ first, count }) => {
    const start = Math.max(first, last.rows);
    return start < first + count ? [{ first: start, count: first + count - start }] : [];
  });
  return [...before, ...added];
}
