/**
 * The few numbers of a step and the counters of a state: stored as the engine says
 * (`Engine.numbers`), float64 to everybody else.
 */

import { bytesOf, float32Of, float64Of } from "../util/bytes.ts";
import type { Engine, Real, Tensor } from "./engine.ts";

/** Half the distance from 1 to the next number. */
export const ROUNDING: Readonly<Record<Real, number>> = { f64: 2 ** -53, f32: 2 ** -24 };

/** Zeros. */
export function allocNumbers(engine: Engine, count: number): Tensor {
  return engine.alloc(engine.numbers, [count]);
}

/** Each is rounded to what the engine stores. */
export function writeNumbers(engine: Engine, t: Tensor, values: Iterable<number>): void {
  engine.write(t, bytesOf(engine.numbers === "f64" ? Float64Array.from(values) : Float32Array.from(values)));
}

/** A copy as of this call. Rejects as `read` does. */
export async function readNumbers(engine: Engine, t: Tensor): Promise<Float64Array> {
  const bytes = await engine.read(t);
  return engine.numbers === "f64" ? float64Of(bytes) : Float64Array.from(float32Of(bytes));
}

/** As the engine stores it. */
export function storedNumber(engine: Engine, value: number): number {
  return engine.numbers === "f64" ? value : Math.fround(value);
}
