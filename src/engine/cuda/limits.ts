/** What the cuda engine cannot hold or number. */

import { parameterCount } from "../../sae/shape.ts";
import type { Shape } from "../engine.ts";
import { MOST_DEAD, MOST_LIVE } from "./encode.ts";
import type { Machine } from "./machine.ts";

/** Rows are numbered with a bit to spare. */
export const MOST_ROWS = 2 ** 31 - 1;
const MOST_LATENTS = 2 ** 30;
const MOST_INPUTS = 8192;

/** Why the shape cannot be computed, in words. */
export function refusal(shape: Shape, m: Machine): string | undefined {
  const { d, n, k, auxk } = shape;
  if (![d, n, k].every((size) => Number.isInteger(size) && size >= 1) || !Number.isInteger(auxk) || auxk < 0) {
    return "d, n and k must be whole numbers from 1, auxk from 0";
  }
  if (k > n) return `k = ${k} is more than the ${n} latents`;
  if (auxk > n) return `auxk = ${auxk} is more than the ${n} latents`;
  if (k > MOST_LIVE) return `k = ${k} is more than the ${MOST_LIVE} that it can select`;
  if (auxk > MOST_DEAD) return `auxk = ${auxk} is more than the ${MOST_DEAD} that it can select`;
  if (n > MOST_LATENTS) return `at most ${MOST_LATENTS} latents can be numbered`;
  if (d > MOST_INPUTS) return `d = ${d} is more than the ${MOST_INPUTS} inputs of a row that it can hold`;
  const { memory, name } = m.device;
  const needed = (3 * 4 + m.bytes) * parameterCount(shape);
  return needed > memory ? `weights and moments take ${needed} bytes, ${name} has ${memory}` : undefined;
}
