/**
 * Rows multiplied by one factor in training leave no trace in the saved weights. With x' = fx x, W
 * (x' - b_pre) + b_lat = fx (W (x - b_pre / fx) + b_lat / fx), and top-k and relu let a positive
 * factor through: biases divided by fx give the codes z / fx and the reconstruction x_hat / fx, the
 * same function of the rows as they are. Encoder and decoder stay as they are, with unit decoder
 * rows.
 *
 * A transcoder's targets have a factor of their own, y' = fy y. Codes are z / fx there too, and
 * y_hat = y_hat' / fy = (W_dec' fx / fy) (z' / fx) + (W_skip' fx / fy) x + b_dec' / fy.
 */

import type { Tensor } from "../engine/engine.ts";
import { normalizationOf, type SaeDescription, targetNormalizationOf } from "../sae/description.ts";
import type { ParamName } from "../sae/params.ts";
import { bytesOf, float32Of, float64Of } from "../util/bytes.ts";

/** What inputs (x) and outputs (y) were multiplied by in training. */
interface Factors {
  readonly x: number;
  readonly y: number;
}

/** What a parameter as trained is divided by when it is saved; the others stay as they are. */
const DIVISORS: { readonly [N in ParamName]?: (factors: Factors) => number } = {
  latentBias: ({ x }) => x,
  threshold: ({ x }) => x,
  cut: ({ x }) => x,
  preBias: ({ y }) => y,
  decoder: ({ x, y }) => y / x,
  skip: ({ x, y }) => y / x,
};

/** Those of them that change only where outputs have a factor of their own. */
const OF_TRANSCODERS: readonly ParamName[] = ["decoder", "skip"];

/** Whether a factor changes the parameter. `untied`: in a transcoder. */
export function mayFold(name: ParamName, untied: boolean): boolean {
  return DIVISORS[name] !== undefined && (untied || !OF_TRANSCODERS.includes(name));
}

/** How the weights of one autoencoder or transcoder are folded. */
export interface Fold {
  /** Whether the parameter is saved in another scale than it was trained in. */
  folds(name: ParamName): boolean;
  /** trained = saved * divisor; 1 for what does not fold. */
  divisor(name: ParamName): number;
}

export function foldOf(description: SaeDescription): Fold {
  const { kind, factor } = normalizationOf(description);
  const factors = { x: factor, y: targetNormalizationOf(description).factor };
  const folds = (name: ParamName) => kind === "scale" && mayFold(name, description.dims.untied === true);
  return { folds, divisor: (name) => (folds(name) ? DIVISORS[name]!(factors) : 1) };
}

/** Elements of the tensor's dtype (f32 or f64), each divided by `divisor` and rounded once. */
export function divided(bytes: Uint8Array, dtype: Tensor["dtype"], divisor: number): Uint8Array {
  return bytesOf(
    dtype === "f64"
      ? float64Of(bytes).map((value) => value / divisor)
      : float32Of(bytes).map((value) => value / divisor),
  );
}
