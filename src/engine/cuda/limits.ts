/** What the cuda engine cannot hold or number. */

import { CORE_PARAMS, parameterCount } from "../../sae/params.ts";
import type { Dims, SelectionPlan } from "../engine.ts";
import { NUMBER, refusedPlan } from "../selections.ts";
import type { CudaContext } from "./context.ts";
import { MOST_DEAD, mostOf } from "./ops/encode.ts";

/** Rows are numbered with a bit to spare. */
export const MOST_ROWS = 2 ** 31 - 1;
const MOST_LATENTS = 2 ** 30;
const MOST_INPUTS = 8192;
/** The selection rules that the kernels know. */
const RULES = ["topk", "batchtopk", "threshold", "band"] as const;

/** Why these dimensions and selections cannot be computed, in words. */
export function refusal(dims: Dims, selections: readonly SelectionPlan[], cuda: CudaContext): string | undefined {
  const refused = refusedPlan(dims, selections, RULES);
  if (refused !== undefined) return refused;
  for (const { rule, among, slots } of selections) {
    const most = among === "dead" ? MOST_DEAD : mostOf(rule);
    if (slots > most) return `${NUMBER[among]} = ${slots} is more than the ${most} that it can select`;
  }
  const { dIn: d, n } = dims;
  if (n > MOST_LATENTS) return `at most ${MOST_LATENTS} latents can be numbered`;
  if (d > MOST_INPUTS) return `d = ${d} is more than the ${MOST_INPUTS} inputs of a row that it can hold`;
  const { memory, name } = cuda.device;
  const needed = (3 * 4 + cuda.bytes) * parameterCount(dims, CORE_PARAMS);
  return needed > memory ? `weights and moments take ${needed} bytes, ${name} has ${memory}` : undefined;
}
