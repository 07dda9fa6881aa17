/** Prefixes of a branch (Matryoshka) as kernels take them. */

import { SaettaError } from "../../../util/errors.ts";
import type { Branch, Prefix } from "../../engine.ts";
import { SIZES, type StructOf } from "../contract.ts";
import { WHERE } from "../driver/libraries.ts";

/** How many planes of err a branch has. */
export function planesOf({ prefixes }: Pick<Branch, "prefixes">): number {
  return prefixes?.length ?? 1;
}

/** The shape of the branch's err. */
export function errShape(branch: Pick<Branch, "prefixes">, B: number, dOut: number): number[] {
  const planes = planesOf(branch);
  return planes === 1 ? [B, dOut] : [planes, B, dOut];
}

/** Throws SaettaError for more prefixes than kernels take. `n`: latents. */
export function prefixesOf({ prefixes }: Pick<Branch, "prefixes">, n: number): StructOf<"Prefixes"> {
  const all: readonly Prefix[] = planesOf({ prefixes }) === 1 ? [{ end: n, weight: 1 }] : prefixes!;
  const most = SIZES.MOST_PREFIXES;
  if (all.length > most)
    throw new SaettaError(`${all.length} prefixes, the kernels take ${most}`, {
      where: WHERE,
      mend: "use fewer prefixes",
    });
  const padded = Array.from({ length: most }, (_, g) => all[Math.min(g, all.length - 1)]!);
  return { count: all.length, ends: padded.map(({ end }) => end), weights: padded.map(({ weight }) => weight) };
}
