/**
 * One training step: the memory it needs and its operations in order. A reader learns the algorithm here; each operation is
 * spelled out in `sae/math.ts`.
 */

import { allocStep, freeStep, writeHyper } from "../engine/allocate.ts";
import type { Engine, Grads, Hyper, Normalization, Path, Shape, State, Step, Tensor } from "../engine/engine.ts";
import { bytesOf, uint32Of } from "../util/bytes.ts";
import { type Part, partOf } from "./part.ts";

export interface TrainStep {
  /** Rows of a batch, or of this replica's part of it. */
  readonly rows: number;
  readonly step: Step;
  readonly live: Path;
  /** The auxiliary path; undefined when auxk is 0. */
  readonly dead: Path | undefined;
  readonly grads: Grads;
  /**
   * One step on rows `index` (u32, `rows` of them) of `raw`. `norm`: also compute the gradient's norm when it is not clipped. `stop`: this rank wants the run to end, which the
   * ranks agree upon with the step's verdict.
   */
  run(state: State, raw: Tensor, index: Uint32Array, hyper: Hyper, norm: boolean, stop?: boolean): void;
  /** As of the last step: whether anything in it was not finite, and whether a rank wants to end. The same on all ranks. */
  verdict(): Promise<{ readonly bad: boolean; readonly stop: boolean }>;
  /** Gives the memory back. */
  close(): void;
}

/**
 * `dense`: keep the gradients of encoder and decoder, for those who want to look at them. `normalization`: of the rows; default: as they are. `part`: where `shape` and `rows` are
 * those of one rank of the grid that the engine's collective makes up; `most`: the rows of the replica that has the most.
 */
export function createTrainStep(
  engine: Engine,
  shape: Shape,
  rows: number,
  dense = false,
  normalization?: Normalization,
  part: Part = partOf(shape),
  most = rows,
): TrainStep {
  const { d, k, auxk } = shape;
  const { grid, whole } = part;
  const t = allocStep(engine, shape);
  const rowsOfRaw = engine.alloc("u32", [rows]);
  const x = engine.alloc(engine.real, [rows, d]);
  const path = (active: number): Path => ({
    codes: engine.codes(rows, active),
    err: engine.alloc(engine.real, [rows, d]),
  });
  const live = path(k);
  const dead = auxk > 0 ? path(auxk) : undefined;
  const g = engine.grads(shape, most, dense);
  const stop = engine.alloc("u32", [1]);

  const operations = (s: State, raw: Tensor, norm: boolean) => {
    const p = s.params;
    engine.load(raw, rowsOfRaw, x, t, normalization);
    engine.encode(p, x, t, live.codes, { age: s.age, codes: dead?.codes });
    engine.merge(live.codes, whole.k, t);
    if (dead) engine.merge(dead.codes, whole.auxk);

    engine.decode(p, live.codes, live.err);
    engine.allReduce(live.err, "sum", "shards");
    engine.residual(p, x, t, live);
    engine.codeGrad(p, live, t);
    if (dead) {
      engine.decode(p, dead.codes, dead.err);
      engine.allReduce(dead.err, "sum", "shards");
      engine.residual(p, x, t, dead, live);
      engine.codeGrad(p, dead, t);
    }

    // The loss is of the whole batch, and so are its factors; a latent has fired when it has in any part of it.
    engine.allReduce(t.sums, "sum", "replicas");
    engine.allReduce(t.fired, "max", "replicas");

    engine.paramGrad(p, x, t, live, dead, g);
    for (const each of [g.latentBias, g.encoder, g.decoder]) if (each) engine.allReduce(each, "sum", "replicas");
    engine.allReduce(g.preBias, "sum", "all");
    if (norm) {
      engine.norm(p, g, t);
      engine.allReduce(t.sq, "sum", "shards");
    }
    // One verdict for all, before any weight changes.
    engine.allReduce(t.bad, "max", "all");
    if (grid.size > 1) engine.allReduce(stop, "max", "all");
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

    run(s, raw, index, hyper, norm, stopping = false) {
      if (last?.[0] !== s || last[1] !== raw) recorded.clear();
      last = [s, raw];
      const withNorm = norm || hyper.clip > 0;
      const replay = recorded.get(withNorm) ?? engine.record(() => operations(s, raw, withNorm));
      recorded.set(withNorm, replay);
      writeHyper(engine, t, hyper);
      engine.write(rowsOfRaw, bytesOf(index));
      if (grid.size > 1) engine.write(stop, bytesOf(Uint32Array.of(stopping ? 1 : 0)));
      replay();
    },

    async verdict() {
      const flags = await Promise.all((grid.size > 1 ? [t.bad, stop] : [t.bad]).map((each) => engine.read(each)));
      const [bad = false, stopping = false] = flags.map((bytes) => uint32Of(bytes)[0] !== 0);
      return { bad, stop: stopping };
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
      engine.free(stop);
      freeStep(engine, t);
    },
  };
}
