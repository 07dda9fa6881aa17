/**
 * One training step: the memory it needs and its operations in order. A reader learns the algorithm here; each operation is
 * spelled out in `sae/math.ts`.
 */

import { allocStep, freeStep, writeHyper } from "../engine/allocate.ts";
import type { Engine, Grads, Hyper, Normalization, Path, Shape, State, Step, Tensor } from "../engine/engine.ts";
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

  const operations = (s: State, raw: Tensor, norm: boolean) => {
    const p = s.params;
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
    if (norm) engine.norm(p, g, t);
    engine.update(s, g, t);
  };
  /** The operations on the last state and rows, with the norm and without. */
  const recorded = new Map<boolean, () => void>();
  let last: readonly [State, Tensor] | undefined;

  return {
    rows,
    step: t,
    live,
    dead,
    grads: g,

    run(s, raw, index, hyper, norm) {
      if (last?.[0] !== s || last[1] !== raw) recorded.clear();
      last = [s, raw];
      const withNorm = norm || hyper.clip > 0;
      const replay = recorded.get(withNorm) ?? engine.record(() => operations(s, raw, withNorm));
      recorded.set(withNorm, replay);
      writeHyper(engine, t, hyper);
      engine.write(rowsOfRaw, bytesOf(index));
      replay();
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
