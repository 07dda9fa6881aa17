/**
 * `sums` of a step, taken apart: the array's layout is SUMS of engine.ts, its meaning Sums of
 * sae/math.ts.
 */

import type { Sums } from "../sae/math.ts";
import { SUMS } from "./engine.ts";

/** Numbers in a sums tensor of an autoencoder with `dOut` outputs. */
export function sumsLength(dOut: number): number {
  return SUMS.length + 2 * dOut;
}

/** The named sums of f64 [sumsLength(d)]; the columns are views, not copies. */
export function namedSums(all: Float64Array): Sums {
  const d = (all.length - SUMS.length) / 2;
  const at = (name: (typeof SUMS)[number]) => all[SUMS.indexOf(name)];
  return {
    err2: at("err2"),
    auxErr2: at("auxErr2"),
    x2: at("x2"),
    centred2: at("centred2"),
    active: at("active"),
    dead: at("dead"),
    errColumns: all.subarray(SUMS.length, SUMS.length + d),
    centredColumns: all.subarray(SUMS.length + d),
  };
}
