/** One process alone: nothing to wait for, nobody to tell. */

import { type Collective, type Elements, gridOf } from "./collective.ts";

export function solo(): Collective {
  return SOLO;
}

const SOLO: Collective = {
  kind: "solo",
  grid: gridOf(0, 1, 1),
  deadline: Number.POSITIVE_INFINITY,
  ready: async () => undefined,
  allReduce: () => undefined,
  reduceScatter: mustBeTheSame,
  allGather: mustBeTheSame,
  broadcast: () => undefined,
  exchange: async (value) => [value],
  barrier: async () => undefined,
  abort: async () => undefined,
  close: async () => undefined,
};

/**
 * Engines with one rank leave such operations out; between two places there would be something to
 * copy.
 */
function mustBeTheSame(from: Elements, to: Elements): void {
  if (from.at !== to.at) throw new RangeError("one rank has no parts to put together");
}
