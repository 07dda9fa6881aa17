/**
 * One training step: the memory it needs and its operations in order. A reader learns the algorithm
 * here; each operation is spelled out in `sae/math.ts`.
 */

import type { Branch, Engine, Grads, Hyper, Normalization, State, Step, Tensor } from "../engine/engine.ts";
import { ForwardPass } from "../engine/forward.ts";
import { bytesOf, uint32Of } from "../util/bytes.ts";
import { type RankShard, trainingSelections } from "./rank-shard.ts";

export interface TrainStep {
  /** Rows of a batch, or of this replica's share of it. */
  readonly rows: number;
  readonly step: Step;
  readonly live: Branch;
  /** The auxiliary branch; undefined without an auxiliary loss. */
  readonly dead: Branch | undefined;
  readonly grads: Grads;
  /**
   * One step on rows `index` (u32, `rows` of them) of `raw`. `norm`: also compute the gradient's
   * norm when it is not clipped. `stop`: this rank asks for the run to end, which all ranks learn
   * with the step's verdict.
   */
  run(state: State, raw: Tensor, index: Uint32Array, hyper: Hyper, norm: boolean, stop?: boolean): void;
  /**
   * Of the last step: whether anything in it was not finite, and whether a rank asks to end. The
   * same on all ranks.
   */
  verdict(): Promise<{ readonly bad: boolean; readonly stop: boolean }>;
  /** Gives the memory back. */
  close(): void;
}

export interface StepOptions {
  /** What this rank of the engine's grid holds. */
  readonly shard: RankShard;
  /** Rows of this replica's share of the batch. */
  readonly rows: number;
  /** Rows of the replica that has the most; default: `rows`. */
  readonly most?: number;
  /** Keep whole gradients of encoder and decoder, to look at them. */
  readonly dense?: boolean;
  /** Of the rows; default: they stay as they are. */
  readonly normalization?: Normalization | undefined;
}

export function createTrainStep(
  engine: Engine,
  { shard, rows, most = rows, dense = false, normalization }: StepOptions,
): TrainStep {
  const { grid, dims } = shard;
  const pass = new ForwardPass(engine, { rows, dims, live: shard.live, dead: shard.dead, normalization });
  const { step: t, x, live, dead } = pass;
  const g = engine.grads(dims, most, trainingSelections(shard), dense);
  const stop = engine.alloc("u32", [1]);

  const operations = (s: State, raw: Tensor, norm: boolean) => {
    const p = s.params;
    pass.encode(p, raw, s.age);
    for (const branch of dead === undefined ? [live] : [live, dead]) {
      pass.decode(p, branch);
      pass.residual(p, branch);
      engine.codeGrad(p, branch, t);
    }

    // The loss is of the whole batch, and so are its factors; a latent has fired when it has in any
    // part of it.
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
      pass.prepare(hyper, index);
      if (grid.size > 1) engine.write(stop, bytesOf(Uint32Array.of(stopping ? 1 : 0)));
      replay();
    },

    async verdict() {
      const flags = await Promise.all((grid.size > 1 ? [t.bad, stop] : [t.bad]).map((each) => engine.read(each)));
      const [bad = false, stopping = false] = flags.map((bytes) => uint32Of(bytes)[0] !== 0);
      return { bad, stop: stopping };
    },

    close() {
      engine.free(g);
      engine.free(stop);
      pass.close();
    },
  };
}
