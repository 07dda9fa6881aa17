/**
 * The forward pass: rows to codes to reconstruction. Training steps, the hold-out, the time
 * estimate, the encoder rescale and inference all use this one. It owns the memory that the pass
 * needs and gives it back in `close`.
 */

import { bytesOf } from "../util/bytes.ts";
import { allocStep, freeStep, writeHyper } from "./allocate.ts";
import type {
  Branch,
  Codes,
  Dims,
  DType,
  Engine,
  Hyper,
  Normalization,
  Params,
  Selection,
  SelectionPlan,
  Step,
  Tensor,
} from "./engine.ts";

export interface ForwardOptions {
  /** Rows of a batch, or of this replica's share of it. */
  readonly rows: number;
  /** Of this rank's shard. */
  readonly dims: Dims;
  readonly live: SelectionPlan;
  /** Among the dead latents, for the auxiliary loss; default: none. */
  readonly dead?: SelectionPlan | undefined;
  /** Applied to each row as it is loaded; default: rows stay as they are. */
  readonly normalization?: Normalization | undefined;
  /**
   * Raw rows of the pass itself: it then has a tensor `raw` [rows, dIn] of this dtype. Default: the
   * caller's.
   */
  readonly raw?: DType | undefined;
}

export class ForwardPass {
  readonly rows: number;
  readonly step: Step;
  /** Numbers of the rows of raw that make up the batch, u32 [rows]. */
  readonly index: Tensor;
  /** The batch, normalised [rows, dIn]. */
  readonly x: Tensor;
  readonly live: Branch;
  /** Branch of the auxiliary loss. */
  readonly dead: Branch | undefined;
  readonly raw: Tensor | undefined;
  readonly #engine: Engine;
  readonly #normalization: Normalization | undefined;
  readonly #selections: readonly Selection[];

  constructor(engine: Engine, { rows, dims, live, dead, normalization, raw }: ForwardOptions) {
    this.#engine = engine;
    this.#normalization = normalization;
    this.rows = rows;
    this.step = allocStep(engine, dims);
    this.index = engine.alloc("u32", [rows]);
    this.x = engine.alloc(engine.real, [rows, dims.dIn]);
    this.raw = raw && engine.alloc(raw, [rows, dims.dIn]);
    const branch = ({ slots }: SelectionPlan): Branch => ({
      codes: engine.codes(rows, slots),
      err: engine.alloc(engine.real, [rows, dims.dOut]),
    });
    this.live = branch(live);
    this.dead = dead && branch(dead);
    const select = ({ rule, among }: SelectionPlan, { codes }: Branch): Selection => ({ rule, among, codes });
    this.#selections = [
      select(live, this.live),
      ...(dead === undefined || this.dead === undefined ? [] : [select(dead, this.dead)]),
    ];
  }

  /** Writes the numbers of the next pass. `index` default: row i of the batch is row i of raw. */
  prepare(hyper: Hyper, index?: Uint32Array): void {
    writeHyper(this.#engine, this.step, hyper);
    const rows = index ?? Uint32Array.from({ length: this.rows }, (_, row) => row);
    this.#engine.write(this.index, bytesOf(rows));
  }

  /**
   * -> x, the codes of all branches, t. `age` decides which latents are dead (engine.ts, `encode`).
   */
  encode(p: Params, raw: Tensor, age?: Tensor): void {
    const engine = this.#engine;
    engine.load(raw, this.index, this.x, this.step, this.#normalization);
    engine.encode(p, this.x, this.step, this.#selections, age);
    for (const { rule, among, codes } of this.#selections) {
      engine.reconcile(rule, codes, among === "all" ? this.step : undefined);
    }
  }

  /** -> err of the branch: the reconstruction by all shards, without a bias. */
  decode(p: Params, { codes, err }: { readonly codes: Codes; readonly err: Tensor } = this.live): void {
    this.#engine.decode(p, codes, err);
    this.#engine.allReduce(err, "sum", "shards");
  }

  /** -> err and sums of the branch, which `decode` has filled. */
  residual(p: Params, branch: Branch = this.live): void {
    this.#engine.residual(p, this.x, this.step, branch, branch === this.dead ? this.live : undefined);
  }

  close(): void {
    const engine = this.#engine;
    for (const branch of [this.live, this.dead]) {
      if (branch === undefined) continue;
      engine.free(branch.codes);
      engine.free(branch.err);
    }
    for (const tensor of [this.x, this.raw, this.index]) if (tensor !== undefined) engine.free(tensor);
    freeStep(engine, this.step);
  }
}
