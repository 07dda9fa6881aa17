/** The engine's memory for what always comes together: parameters, and the small tensors of a step. */

import { bytesOf } from "../util/bytes.ts";
import {
  type Engine,
  HYPER,
  type Hyper,
  PARAM_NAMES,
  type Params,
  paramShapes,
  type Shape,
  type Step,
  type Tensor,
} from "./engine.ts";
import { sumsLength } from "./sums.ts";

/** Zero-filled parameters in the engine's `real`. */
export function allocParams(engine: Engine, shape: Shape): Params {
  const shapes = paramShapes(shape);
  return Object.fromEntries(
    PARAM_NAMES.map((name) => [name, engine.alloc(engine.real, shapes[name])]),
  ) as unknown as Params;
}

/** The small tensors that every step writes its findings to. */
export function allocStep(engine: Engine, { d, n }: Shape): Step {
  return {
    hyper: engine.alloc("f64", [HYPER.length]),
    sums: engine.alloc("f64", [sumsLength(d)]),
    fired: engine.alloc("u32", [n]),
    bad: engine.alloc("u32", [1]),
    sq: engine.alloc("f64", [1]),
  };
}

export function freeStep(engine: Engine, t: Step): void {
  for (const tensor of Object.values(t) as Tensor[]) engine.free(tensor);
}

export function writeHyper(engine: Engine, t: Step, hyper: Hyper): void {
  engine.write(t.hyper, bytesOf(Float64Array.from(HYPER, (name) => hyper[name])));
}
