/**
 * `sums` of a step, taken apart: the array's layout is SUMS of engine.ts, its meaning Sums of
 * sae/math.ts.
 */

import type { Sums } from "../sae/math.ts";
import { SUMS } from "./engine.ts";

/** Numbers in a sums tensor of an autoencoder with `dOut` outputs and so many prefixes. */
export function sumsLength(dOut: number, prefixes = 1): number {
  return SUMS.length + 2 * dOut + (prefixes > 1 ? dOut + prefixes - 1 : 0);
}

/** The named sums of f64 [sumsLength(d, prefixes)]; the columns are views, not copies. */
export function namedSums(all: Float64Array, prefixes = 1): Sums & { readonly tanh: number } {
  const inner = prefixes - 1;
  const d = (all.length - SUMS.length - inner) / (prefixes > 1 ? 3 : 2);
  const at = (name: (typeof SUMS)[number]) => all[SUMS.indexOf(name)];
  const columns = (block: number) => all.subarray(SUMS.length + block * d, SUMS.length + (block + 1) * d);
  return {
    err2: at("err2"),
    auxErr2: at("auxErr2"),
    x2: at("x2"),
    centred2: at("centred2"),
    active: at("active"),
    dead: at("dead"),
    tanh: at("tanh"),
    errColumns: columns(0),
    centredColumns: columns(1),
    planeColumns: columns(prefixes > 1 ? 2 : 0),
    prefixErr2: all.subarray(all.length - inner),
  };
}
