/**
 * One training step: the memory it needs and its operations in order. A reader learns the algorithm
 * here; each operation is spelled out in `sae/math.ts`.
 */

import { writeHyper } from "../engine/allocate.ts";
import {
  type Branch,
  type Engine,
  FULL,
  type Grads,
  type Hyper,
  type NarrowType,
  type Normalization,
  OVERFLOW,
  type State,
  type Step,
  type Tensor,
} from "../engine/engine.ts";
import { ForwardPass } from "../engine/forward.ts";
import { bytesOf, uint32Of } from "../util/bytes.ts";
import type { RankShard } from "./rank-shard.ts";
import { readReals } from "./state.ts";

export interface TrainStep {
  /** Rows of a batch, or of this replica's share of it. */
  readonly rows: number;
  readonly step: Step;
  readonly live: Branch;
  /** The auxiliary branch; undefined without an auxiliary loss. */
  readonly dead: Branch | undefined;
  /** What the wide branch of multi-TopK summed; undefined without. */
  readonly wideSums: Tensor | undefined;
  readonly grads: Grads;
  /**
   * Multiplier of the sparsity coefficient that the last step used, where there is one and the
   * gradient's norm was asked for.
   */
  readonly multiplier: Promise<number> | undefined;
  /**
   * One step on rows `index` (u32, `rows` of them) of `raw`. `norm`: also compute the gradient's
   * norm when it is not clipped. `stop`: this rank asks for the run to end, which all ranks learn
   * with the step's verdict.
   */
  run(state: State, raw: Tensor, index: Uint32Array, hyper: Hyper, norm: boolean, stop?: boolean): void;
  /**
   * The step whose verdict was `full`, once more with more slots, on the rows that it has loaded.
   * Steps that were queued after it have changed nothing.
   */
  again(state: State, hyper: Hyper, norm: boolean, stop?: boolean): void;
  /** Of the last step. The same on all ranks. */
  verdict(): Promise<Verdict>;
  /** Gives the memory back. */
  close(): void;
}

export interface Verdict {
  /** Something in it was not finite. */
  readonly bad: boolean;
  /** A row needed more slots than there are: the step is to be run `again`. */
  readonly full: boolean;
  /** Gradients did not fit the wire: a smaller loss scale is due. */
  readonly overflow: boolean;
  /** A rank asks to end. */
  readonly stop: boolean;
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
  /** Of a transcoder: of the targets, which follow x in the rows of raw. */
  readonly target?: Normalization | undefined;
  /** Whether there is a skip connection. */
  readonly skip?: boolean | undefined;
  /** What ranks exchange reconstructions and gradients of matrices as; default: as they are. */
  readonly wire?: NarrowType | undefined;
}

export function createTrainStep(
  engine: Engine,
  { shard, rows, most = rows, dense = false, normalization, target, skip, wire }: StepOptions,
): TrainStep {
  const { grid, dims, live, dead, wide, band, prefixes } = shard;
  const pass = new ForwardPass(engine, { rows, dims, live, dead, wide, band, prefixes, normalization, target, wire });
  const { step: t, x } = pass;
  const newGrads = () => engine.grads({ dims, rows: most, selections: pass.plans(), dense, skip });
  let g = newGrads();
  const stop = engine.alloc("u32", [1]);
  const narrow = wire && ({ as: wire, t, scaled: true } as const);
  let multiplier: Promise<number> | undefined;
  /** The step changes it: read before. */
  const readMultiplier = ({ params: { sparsity } }: State, norm: boolean) => {
    multiplier = sparsity && norm ? readReals(engine, sparsity).then(([first]) => first!) : undefined;
    // Its reader gets the failure.
    multiplier?.catch(() => undefined);
  };

  const operations = (s: State, norm: boolean) => {
    const p = s.params;
    pass.select(p, s.age);
    for (const branch of [pass.live, pass.dead, pass.wide]) {
      if (branch === undefined) continue;
      pass.decode(p, branch);
      pass.residual(p, branch);
      engine.codeGrad(p, branch, t);
    }
    if (pass.band !== undefined) engine.codeGrad(p, pass.band, t);

    // The loss is of the whole batch, and so are its factors; a latent has fired when it has in any
    // part of it.
    engine.allReduce(t.sums, "sum", "replicas");
    if (pass.wideStep !== undefined) engine.allReduce(pass.wideStep.sums, "sum", "replicas");
    engine.allReduce(t.fired, "max", "replicas");
    if (live.rule.kind === "threshold") engine.allReduce(t.active, "sum", "all");

    const band = pass.band?.codes;
    const ofWide = pass.wide && pass.wideStep && { branch: pass.wide, sums: pass.wideStep.sums };
    engine.paramGrad({ p, x, t, live: pass.live, dead: pass.dead, wide: ofWide, band, age: s.age, g });
    for (const each of [g.latentBias, g.encoder, g.decoder, g.threshold, g.skip])
      if (each) engine.allReduce(each, "sum", "replicas", each.shape.length > 1 ? narrow : undefined);
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
    get live() {
      return pass.live;
    },
    get dead() {
      return pass.dead;
    },
    get wideSums() {
      return pass.wideStep?.sums;
    },
    get grads() {
      return g;
    },
    get multiplier() {
      return multiplier;
    },

    run(s, raw, index, hyper, norm, stopping = false) {
      if (last?.[0] !== s || last[1] !== raw) recorded.clear();
      last = [s, raw];
      const withNorm = norm || hyper.clip > 0;
      const replay =
        recorded.get(withNorm) ??
        engine.record(() => {
          pass.load(raw);
          operations(s, withNorm);
        });
      recorded.set(withNorm, replay);
      pass.prepare(hyper, index);
      if (grid.size > 1) engine.write(stop, bytesOf(Uint32Array.of(stopping ? 1 : 0)));
      readMultiplier(s, norm);
      replay();
    },

    again(s, hyper, norm, stopping = false) {
      pass.grow();
      engine.free(g);
      g = newGrads();
      recorded.clear();
      writeHyper(engine, t, hyper);
      if (grid.size > 1) engine.write(stop, bytesOf(Uint32Array.of(stopping ? 1 : 0)));
      readMultiplier(s, norm);
      operations(s, norm || hyper.clip > 0);
    },

    async verdict() {
      const flags = await Promise.all((grid.size > 1 ? [t.bad, stop] : [t.bad]).map((each) => engine.read(each)));
      const [bad = 0, stopping = 0] = flags.map((bytes) => uint32Of(bytes)[0]!);
      const overflow = (bad & OVERFLOW) !== 0;
      return { bad: bad !== 0, full: (bad & FULL) !== 0, overflow, stop: stopping !== 0 };
    },

    close() {
      engine.free(g);
      engine.free(stop);
      pass.close();
    },
  };
}
