/** Codes on the card, and how the operations on them are computed. */

import { SaettaError } from "../../../util/errors.ts";
import type { Codes, DType } from "../../engine.ts";
import { HeldCodes } from "../../held-memory.ts";
import type { Address } from "../driver/driver.ts";
import { WHERE } from "../driver/libraries.ts";
import { PerTensor } from "./per-tensor.ts";
import { addressOf, type CudaTensor } from "./tensor.ts";

/** Where the list of dead latents is on the card. */
export interface DeadAddresses {
  /** u32 [n]: the dead, ascending. */
  readonly list: Address;
  /** u32 [n]: the place of each latent in the list, or NONE. */
  readonly slot: Address;
  /** u32 [2]: how many are dead now, and how many can be when the forecast is used. */
  readonly counts: Address;
}

/**
 * How decode, codeGrad and paramGrad compute with codes: pair by pair; by products over all dead
 * latents, at most `capacity` of them; or not at all, because no code can be on.
 */
export type Strategy =
  | { readonly kind: "pairs" }
  | { readonly kind: "dense"; readonly capacity: number; readonly dead: DeadAddresses }
  | { readonly kind: "empty" };

export type DenseStrategy = Extract<Strategy, { kind: "dense" }>;

export const PAIRS: Strategy = { kind: "pairs" };
export const EMPTY: Strategy = { kind: "empty" };

const codesOf = new PerTensor<CudaCodes>(() => undefined);

export class CudaCodes extends HeldCodes<CudaTensor> {
  strategy: Strategy = PAIRS;

  constructor(rows: number, capacity: number, alloc: (dtype: DType, shape: readonly number[]) => CudaTensor) {
    super(rows, capacity, alloc);
    for (const tensor of Object.values(this.tensors)) codesOf.add(tensor, this);
  }

  /** Addresses from row `first` on. */
  from(first = 0): { readonly latent: Address; readonly value: Address; readonly grad: Address } {
    const { latent, value, grad } = this.tensors;
    const at = (t: CudaTensor) => addressOf(t) + 4 * first * this.capacity;
    return { latent: at(latent), value: at(value), grad: at(grad) };
  }
}

/** The tensor was written from outside. Codes that it is part of may then hold any latents. */
export function forgetStrategy(t: CudaTensor): void {
  const codes = codesOf.get(t);
  if (codes !== undefined) codes.strategy = PAIRS;
}

export function ownCodes(z: Codes, rows: number): CudaCodes {
  if (!(z instanceof CudaCodes)) throw new SaettaError("codes of another engine were given to the cuda engine");
  if (z.rows !== rows) throw new SaettaError(`codes of ${z.rows} rows where ${rows} are needed`, { where: WHERE });
  return z;
}
