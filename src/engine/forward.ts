/**
 * The forward pass: rows to codes to reconstruction. Training steps, the hold-out, the time
 * estimate, the encoder rescale and inference all use this one. It owns the memory that the pass
 * needs and gives it back in `close`.
 */

import { mayOverflow } from "../sae/rule.ts";
import { BYTES, bytesOf, uint32Of } from "../util/bytes.ts";
import { allocStep, freeStep, writeHyper } from "./allocate.ts";
import {
  type Branch,
  type Codes,
  type Dims,
  type DType,
  type Engine,
  FULL,
  type Hyper,
  type NarrowType,
  type Normalization,
  type Params,
  type Prefix,
  type Selection,
  type SelectionPlan,
  type Step,
  type Tensor,
} from "./engine.ts";
import { allocNumbers } from "./numbers.ts";
import { sumsLength } from "./sums.ts";

export interface ForwardOptions {
  /** Rows of a batch, or of this replica's share of it. */
  readonly rows: number;
  /** Of this rank's shard. */
  readonly dims: Dims;
  readonly live: SelectionPlan;
  /** Among the dead latents, for the auxiliary loss; default: none. */
  readonly dead?: SelectionPlan | undefined;
  /** Of multi-TopK, instead of the dead; default: none. */
  readonly wide?: SelectionPlan | undefined;
  /** For the gradient of thresholds; default: none. */
  readonly band?: SelectionPlan | undefined;
  /** Of this shard's latents; default: one reconstruction by all. */
  readonly prefixes?: readonly Prefix[] | undefined;
  /** Applied to each row as it is loaded; default: rows stay as they are. */
  readonly normalization?: Normalization | undefined;
  /**
   * Of a transcoder that is given targets: rows of raw are those of x, followed by the target's, to
   * which this normalisation is applied.
   */
  readonly target?: Normalization | undefined;
  /**
   * Raw rows of the pass itself: it then has a tensor `raw` of this dtype. Default: the caller's.
   */
  readonly raw?: DType | undefined;
  /** What shards exchange their reconstructions as; default: as they are. */
  readonly wire?: NarrowType | undefined;
}

export class ForwardPass {
  readonly rows: number;
  readonly step: Step;
  /** The same with sums for the wide branch; undefined where there is none. */
  readonly wideStep: Step | undefined;
  /** Numbers of the rows of raw that make up the batch, u32 [rows]. */
  readonly index: Tensor;
  /** The batch, normalised [rows, dIn]. */
  readonly x: Tensor;
  /** What is reconstructed [rows, dOut]: x, but for a transcoder. */
  readonly target: Tensor;
  readonly raw: Tensor | undefined;
  readonly #engine: Engine;
  readonly #options: ForwardOptions;
  #live: Branch;
  #dead: Branch | undefined;
  readonly #wide: Branch | undefined;
  #band: Codes | undefined;
  /** How often the slots were doubled. */
  #doublings = 0;
  /** `index` numbers the rows from 0 on. */
  #isInOrder = false;

  constructor(engine: Engine, options: ForwardOptions) {
    const { rows, dims, live, dead, wide, band, prefixes, target, raw } = options;
    this.#engine = engine;
    this.#options = options;
    this.rows = rows;
    this.step = allocStep(engine, dims, prefixes?.length);
    this.index = engine.alloc("u32", [rows]);
    this.x = engine.alloc(engine.real, [rows, dims.dIn]);
    this.target = target === undefined ? this.x : engine.alloc(engine.real, [rows, dims.dOut]);
    this.raw = raw && engine.alloc(raw, [rows, dims.dIn + (target === undefined ? 0 : dims.dOut)]);
    const planes = prefixes === undefined || prefixes.length === 1 ? [] : [prefixes.length];
    this.#live = {
      codes: engine.codes(rows, live.slots),
      err: engine.alloc(engine.real, [...planes, rows, dims.dOut]),
      prefixes: planes.length === 0 ? undefined : prefixes,
    };
    const second = (plan: SelectionPlan | undefined): Branch | undefined =>
      plan && { codes: engine.codes(rows, plan.slots), err: engine.alloc(engine.real, [rows, dims.dOut]) };
    this.#dead = second(dead);
    this.#wide = second(wide);
    this.wideStep = wide && { ...this.step, sums: allocNumbers(engine, sumsLength(dims.dOut)) };
    this.#band = band && engine.codes(rows, band.slots);
  }

  get live(): Branch {
    return this.#live;
  }

  /** Branch of the auxiliary loss. */
  get dead(): Branch | undefined {
    return this.#dead;
  }

  /** Branch of multi-TopK. */
  get wide(): Branch | undefined {
    return this.#wide;
  }

  /** Branch of the thresholds' gradients: the codes in the band, and the err of the live branch. */
  get band(): Branch | undefined {
    return this.#band && { ...this.#live, codes: this.#band };
  }

  /** Writes the numbers of the next pass. `index` default: row i of the batch is row i of raw. */
  prepare(hyper: Hyper, index?: Uint32Array): void {
    writeHyper(this.#engine, this.step, hyper);
    if (this.wideStep !== undefined) this.#clear(this.wideStep.sums);
    if (index === undefined && this.#isInOrder) return;
    this.#engine.write(this.index, bytesOf(index ?? Uint32Array.from({ length: this.rows }, (_, row) => row)));
    this.#isInOrder = index === undefined;
  }

  /** -> x, the target. */
  load(raw: Tensor): void {
    const { normalization, target, dims } = this.#options;
    this.#engine.load(raw, this.index, this.x, this.step, normalization);
    if (target !== undefined) this.#engine.load(raw, this.index, this.target, this.step, target, dims.dIn);
  }

  /**
   * -> the codes of all branches, t, from x. `age` decides which latents are dead (engine.ts,
   * `encode`).
   */
  select(p: Params, age?: Tensor): void {
    const engine = this.#engine;
    const selections = this.#selections();
    engine.encode(p, this.x, this.step, selections, age);
    for (const { rule, among, codes } of selections) {
      engine.reconcile(rule, codes, this.step, among === "all" && rule.kind !== "band");
    }
  }

  /** `load` and `select`. */
  encode(p: Params, raw: Tensor, age?: Tensor): void {
    this.load(raw);
    this.select(p, age);
  }

  /** -> err of the branch: the reconstruction by all shards, without a bias. */
  decode(p: Params, branch: Branch = this.#live): void {
    this.#engine.decode(p, branch, branch === this.#live ? this.x : undefined);
    const { wire } = this.#options;
    const narrow = wire && ({ as: wire, t: this.step, scaled: false } as const);
    this.#engine.allReduce(branch.err, "sum", "shards", narrow);
  }

  /** -> err and sums of the branch, which `decode` has filled. */
  residual(p: Params, branch: Branch = this.#live): void {
    const t = branch === this.#wide ? this.wideStep! : this.step;
    this.#engine.residual(p, this.target, t, branch, branch === this.#dead ? this.#live : undefined);
  }

  /**
   * `encode`, then `rest`; both again, from the rows that are loaded and with twice as many slots,
   * until the rows fit their codes. With a rule that cannot overflow nothing is waited for.
   */
  async encodeFitting(p: Params, raw: Tensor, rest?: () => void): Promise<void> {
    this.load(raw);
    for (;;) {
      this.select(p);
      rest?.();
      if (!mayOverflow(this.#options.live.rule)) return;
      const [bad] = uint32Of(await this.#engine.read(this.step.bad));
      if ((bad! & FULL) === 0) return;
      this.grow();
    }
  }

  /** Doubles the slots of codes that may overflow, and clears what the step has found. */
  grow(): void {
    const engine = this.#engine;
    const { live, band, dims } = this.#options;
    this.#doublings++;
    const larger = (codes: Codes, plan: SelectionPlan): Codes => {
      const capacity = Math.min(dims.n, plan.slots * 2 ** this.#doublings);
      if (!mayOverflow(plan.rule) || capacity === codes.capacity) return codes;
      engine.free(codes);
      return engine.codes(this.rows, capacity);
    };
    this.#live = { ...this.#live, codes: larger(this.#live.codes, live) };
    this.#band = this.#band && larger(this.#band, band!);
    const { sums, fired, bad, sq, cut, active } = this.step;
    for (const tensor of [sums, fired, bad, sq, cut, active]) this.#clear(tensor);
    if (this.wideStep !== undefined) this.#clear(this.wideStep.sums);
  }

  #clear(tensor: Tensor): void {
    this.#engine.write(tensor, new Uint8Array(tensor.shape.reduce((a, b) => a * b, BYTES[tensor.dtype])));
  }

  /** The selections with the slots that there are now. */
  plans(): readonly SelectionPlan[] {
    return this.#selections().map(({ rule, among, codes }) => ({ rule, among, slots: codes.capacity }));
  }

  close(): void {
    const engine = this.#engine;
    for (const branch of [this.#live, this.#dead, this.#wide]) {
      if (branch === undefined) continue;
      engine.free(branch.codes);
      engine.free(branch.err);
    }
    if (this.#band !== undefined) engine.free(this.#band);
    if (this.wideStep !== undefined) engine.free(this.wideStep.sums);
    if (this.target !== this.x) engine.free(this.target);
    for (const tensor of [this.x, this.raw, this.index]) if (tensor !== undefined) engine.free(tensor);
    freeStep(engine, this.step);
  }

  #selections(): readonly Selection[] {
    const { live, dead, wide, band } = this.#options;
    const select = ({ rule, among }: SelectionPlan, codes: Codes): Selection => ({ rule, among, codes });
    return [
      select(live, this.#live.codes),
      ...(dead === undefined || this.#dead === undefined ? [] : [select(dead, this.#dead.codes)]),
      ...(wide === undefined || this.#wide === undefined ? [] : [select(wide, this.#wide.codes)]),
      ...(band === undefined || this.#band === undefined ? [] : [select(band, this.#band)]),
    ];
  }
}
