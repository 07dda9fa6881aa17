/**
 * One training step: the memory it needs and its operations in order. A reader learns the algorithm here; each operation is
 * spelled out in `sae/math.ts`.
 */

import {
  type Engine,
  type Grads,
  HYPER,
  type Hyper,
  type Normalization,
  type Path,
  type Shape,
  type State,
  type Step,
  type Tensor,
} from "../engine/engine.ts";
import { sumsLength } from "../engine/sums.ts";
import { bytesOf } from "../util/bytes.ts";

export interface TrainStep {
  /** Rows of a batch. */
  readonly rows: number;
  readonly step: Step;
  readonly live: Path;
  /** The auxiliary path; undefined when auxk is 0. */
  readonly dead: Path | undefined;
  readonly grads: Grads;
  /** One step on rows `index` (u32, `rows` of them) of `raw`. `norm`: also compute the gradient's norm when it is not clipped. */
  run(state: State, raw: Tensor, index: Uint32Array, hyper: Hyper, norm: boolean): void;
  /** Gives the memory back. */
  close(): void;
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

/** `dense`: keep the gradients of encoder and decoder, for those who want to look at them. `normalization`: of the rows; default: as they are. */
export function createTrainStep(engine: Engine, shape: Shape, rows: number, dense = false, normalization?: Normalization): TrainStep {
  const { d, k, auxk } = shape;
  const t = allocStep(engine, shape);
  const rowsOfRaw = engine.alloc("u32", [rows]);
  const x = engine.alloc(engine.real, [rows, d]);
  const path = (active: number): Path => ({ codes: engine.codes(rows, active), err: engine.alloc(engine.real, [rows, d]) });
  const live = path(k);
  const dead = auxk > 0 ? path(auxk) : undefined;
  const g = engine.grads(shape, rows, dense);
  return {
    rows,
    step: t,
    live,
    dead,
    grads: g,

    run(s, raw, index, hyper, norm) {
      const p = s.params;
      writeHyper(engine, t, hyper);
      engine.write(rowsOfRaw, bytesOf(index));
      engine.load(raw, rowsOfRaw, x, t, normalization);
      engine.encode(p, x, t, live.codes, { age: s.age, codes: dead?.codes });

      engine.decode(p, live.codes, live.err);
      engine.residual(p, x, t, live);
      engine.codeGrad(p, live, t);
      if (dead) {
        engine.decode(p, dead.codes, dead.err);
        engine.residual(p, x, t, dead, live);
        engine.codeGrad(p, dead, t);
      }

      engine.paramGrad(p, x, t, live, dead, g);
      if (norm || hyper.clip > 0) engine.norm(p, g, t);
      engine.update(s, g, t);
    },

    close() {
      for (const each of [live, dead]) {
        if (each === undefined) continue;
        engine.free(each.codes);
        engine.free(each.err);
      }
      engine.free(g);
      engine.free(x);
      engine.free(rowsOfRaw);
      freeStep(engine, t);
    },
  };
}
