/**
 * The engine's memory for what always comes together: parameters, and the small tensors of a step.
 */

import { type ParamName, paramEntries, perParam } from "../sae/params.ts";
import { hyperValues } from "./contract/names.ts";
import { type Dims, type Engine, HYPER, type Hyper, type Params, type Step, type Tensor } from "./engine.ts";
import { allocNumbers, writeNumbers } from "./numbers.ts";
import { sumsLength } from "./sums.ts";

/** Zero-filled parameters in the engine's `real`. */
export function allocParams(engine: Engine, dims: Dims, names: readonly ParamName[]): Params {
  const tensors = perParam(names, (_, { shape }) => engine.alloc(engine.real, shape(dims)));
  return { ...tensors, untied: dims.untied };
}

export function freeParams(engine: Engine, params: Params): void {
  for (const [, , tensor] of paramEntries(params)) engine.free(tensor);
}

/** The small tensors that every step writes its findings to, with `prefixes` of them. */
export function allocStep(engine: Engine, { dOut, n }: Dims, prefixes = 1): Step {
  return {
    hyper: allocNumbers(engine, HYPER.length),
    sums: allocNumbers(engine, sumsLength(dOut, prefixes)),
    fired: engine.alloc("u32", [n]),
    bad: engine.alloc("u32", [1]),
    sq: allocNumbers(engine, 1),
    cut: engine.alloc(engine.real, [1]),
    active: allocNumbers(engine, 1),
  };
}

export function freeStep(engine: Engine, t: Step): void {
  for (const tensor of Object.values(t) as Tensor[]) engine.free(tensor);
}

export function writeHyper(engine: Engine, t: Step, hyper: Hyper): void {
  writeNumbers(engine, t.hyper, hyperValues(hyper));
}
