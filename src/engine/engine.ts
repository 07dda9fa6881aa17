/**
 * THE INTERFACE. An engine is memory and the dozen operations that one training step is made of. It
 * knows how to do each of them on one kind of hardware, and nothing else: not where rows come from,
 * what a learning rate schedule is, when a step is logged or how a checkpoint looks.
 * `train/step.ts` calls the operations in order; `conformance.ts` says what each must do, by
 * comparing every engine with `reference.ts`.
 *
 * Operations run in the order of the calls, write only what stands after `->`, and return at once.
 * Only `read` waits; what went wrong in an earlier operation surfaces there. B rows, d inputs, n
 * latents; matrices are row-major.
 *
 * An engine that is given a collective is one rank of a grid: n are the latents of its shard, B the
 * rows of its replica. What an operation writes is then this rank's part; `reconcile` and
 * `allReduce` put the parts together (train/step.ts says which and when).
 */

import type { Over, ReduceOp } from "../collective/collective.ts";
import type { Dims } from "../sae/dims.ts";
import type { Normalization, Prefix } from "../sae/math.ts";
import type { PerParam } from "../sae/params.ts";
import type { Rule } from "../sae/rule.ts";
import type { NarrowType } from "./contract/names.ts";

export type { Over, ReduceOp } from "../collective/collective.ts";
export type { Dims } from "../sae/dims.ts";
export type { Normalization, Prefix } from "../sae/math.ts";
export type { Rule } from "../sae/rule.ts";
export {
  COUNTERS,
  FULL,
  HYPER,
  HYPER_DEFAULTS,
  type Hyper,
  type NarrowType,
  NONE,
  OVERFLOW,
  SUMS,
} from "./contract/names.ts";

export type DType = "f64" | "f32" | "bf16" | "f16" | "u32" | "u8";

/** What an engine computes in; parameters, moments, codes and err are stored so. */
export type Real = "f64" | "f32";

/** Memory of an engine. Opaque: only the engine that made it may look inside. */
export interface Tensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/**
 * At most `capacity` pairs (latent, value) per row, in the order of their rule (sae/rule.ts), and
 * the gradient of each value. Opaque; `pairs` spells them out. A row may use fewer slots than there
 * are: an unused slot has latent NONE, value 0 and gradient 0, comes after the used ones, and no
 * operation touches a weight for it.
 */
export interface Codes {
  readonly rows: number;
  readonly capacity: number;
}

/**
 * One of the ways through the autoencoder. `err` [B,dOut] holds first the decoder's sum W z, then
 * (after `residual`) reconstruction minus target: live and wide W z + b - y; dead W z + live.err.
 * It and the codes' gradient = decoder[latent] . err are stored unscaled; the factors of the loss
 * are applied by `paramGrad`.
 *
 * With G > 1 `prefixes` (of this shard's latents; Matryoshka) err is [G,B,dOut] with the planes of
 * math.ts, `prefixResiduals`. The last plane is the residual of the whole autoencoder, which the
 * auxiliary loss and `sums` use.
 */
export interface Branch {
  readonly codes: Codes;
  readonly err: Tensor;
  readonly prefixes?: readonly Prefix[] | undefined;
}

/** The parameters (sae/params.ts), all in the engine's `real`. */
export interface Params extends PerParam<Tensor> {
  /** b_dec is not subtracted from the input. */
  readonly untied?: boolean | undefined;
}

/**
 * All that training changes. `m`, `v`: Adam's moments. `ema`: the running average, not
 * bias-corrected. `age` u32 [n]: rows of the global batches since the latent last fired,
 * saturating. `counters` [COUNTERS.length]: only the engine knows which steps were skipped.
 */
export interface State {
  readonly params: Params;
  readonly m: Params;
  readonly v: Params;
  readonly ema?: Params;
  readonly age: Tensor;
  readonly counters: Tensor;
}

/**
 * One step's small tensors: `fired` u32 [n], 1 where the latent fired; `bad` u32 [1], not 0 when
 * something is not finite, with the bit FULL when a row needed more slots than there are and the
 * bit OVERFLOW when a scaled gradient did not fit the wire; `sq` [1]:
 * squared norm of the gradient after projection; `cut` [1]: the lowest value that "batchtopk" kept,
 * 0 for none; `active` [1]: values that "threshold" selected, of this rank until it is reduced.
 */
export interface Step {
  readonly hyper: Tensor;
  readonly sums: Tensor;
  readonly fired: Tensor;
  readonly bad: Tensor;
  readonly sq: Tensor;
  readonly cut: Tensor;
  readonly active: Tensor;
}

/**
 * The gradient of a step. `preBias` and `latentBias` always exist; encoder and decoder gradients
 * (unprojected) only where they were asked for: else `norm` and `update` form each row as they need
 * it from what `paramGrad` left in here (opaque), so x and the branches must not change until
 * `update`.
 */
export interface Grads {
  readonly preBias: Tensor;
  readonly latentBias: Tensor;
  readonly encoder?: Tensor;
  readonly decoder?: Tensor;
  /** Where there is a selection by "band". */
  readonly threshold?: Tensor;
  /** Where a skip connection was asked for. */
  readonly skip?: Tensor;
}

/**
 * How numbers of a sum are narrowed on the wire. Each rank's part is rounded to 16 bits, summed in
 * `real`, and the sum rounded again. `scaled`: numbers are multiplied by hyper.lossScale before and
 * divided by it after; one that is finite and does not fit marks OVERFLOW in t.bad, else 1.
 */
export interface Narrowing {
  readonly as: NarrowType;
  readonly t: Step;
  readonly scaled: boolean;
}

/** What `grads` needs to know. */
export interface GradsPlan {
  readonly dims: Dims;
  /** Of the largest batch, the same number on all replicas. */
  readonly rows: number;
  /** Where the codes come from. */
  readonly selections: readonly SelectionPlan[];
  /**
   * Asks for whole encoder and decoder gradients, which an engine may also keep unasked where
   * replicas sum them.
   */
  readonly dense: boolean;
  readonly skip?: boolean | undefined;
}

/** What `paramGrad` is given. */
export interface ParamGradInput {
  readonly p: Params;
  readonly x: Tensor;
  readonly t: Step;
  readonly live: Branch;
  readonly dead?: Branch | undefined;
  /** Instead of `dead`: of multi-TopK, and what `residual` has summed of it. */
  readonly wide?: { readonly branch: Branch; readonly sums: Tensor } | undefined;
  /** Codes of the rule "band", whose gradients `codeGrad` has found with the live err. */
  readonly band?: Codes | undefined;
  /** Needed where hyper.deadPenalty may be above 0. */
  readonly age?: Tensor | undefined;
  readonly g: Grads;
}

/**
 * Which latents may be selected: all; only those that are dead as the step begins; all once more,
 * for the wide branch of multi-TopK.
 */
export type Among = "all" | "dead" | "wide";

/** A selection before there is memory for it: `slots` is the capacity of its codes. */
export interface SelectionPlan {
  readonly rule: Rule;
  readonly among: Among;
  readonly slots: number;
}

/** One selection of `encode`. */
export interface Selection {
  readonly rule: Rule;
  readonly among: Among;
  /** Receives what is selected: of each row at most `capacity` latents. */
  readonly codes: Codes;
}

export interface Engine extends AsyncDisposable {
  readonly name: string;
  /** For people: "cpu: AMD EPYC, 2 threads, AVX-512". */
  readonly description: string;
  readonly real: Real;
  /**
   * What the numbers of a step and the counters (hyper, sums, sq, counters) are stored in. They are
   * opaque: numbers.ts reads and writes them.
   */
  readonly numbers: Real;
  /**
   * What decides the bits of its results, beside what it is given: which code, for which
   * instructions. Default: what `description` says.
   */
  readonly build?: string | undefined;
  /**
   * Where products are computed in numbers narrower than `real`: half the distance from 1 to the
   * next of them.
   */
  readonly rounding?: number | undefined;
  /**
   * Gives everything back, after every operation already called; may be called again. The same as
   * asyncDispose.
   */
  close(): Promise<void>;
  /**
   * Why this engine cannot run an autoencoder of these dimensions with these selections, in words;
   * undefined when it can.
   */
  refuses(dims: Dims, selections: readonly SelectionPlan[]): string | undefined;

  /** Zero-filled. Throws SaettaError with the bytes needed when there is no room. */
  alloc(dtype: DType, shape: readonly number[]): Tensor;
  codes(rows: number, capacity: number): Codes;
  /** Memory for the gradient of batches. */
  grads(plan: GradsPlan): Grads;
  /** Gives memory back, after every operation already called. */
  free(it: Tensor | Codes | Grads): void;
  /**
   * Bytes (little-endian elements) into the tensor from byte `at` (default 0). They are copied
   * before it returns.
   */
  write(t: Tensor, bytes: Uint8Array, at?: number): void;
  /**
   * Memory of the host for rows that wait for `upload`, which takes them from there the fastest. It
   * is the engine's, and gone when that is closed.
   */
  hostMemory(bytes: number): Uint8Array<ArrayBuffer>;
  /**
   * Rows (f16, bf16, f32 or f64) into raw [m,d] from row `row` on, beside the operations: those
   * already called find there what was there before; none that needs these rows may be called until
   * the promise resolves, nor may the bytes be changed. It resolves with those of the rows, counted
   * from 0, that hold something not finite.
   */
  upload(raw: Tensor, bytes: Uint8Array, row: number): Promise<readonly number[]>;
  /**
   * A copy of the tensor's bytes as of this call. Rejects with what went wrong in an earlier
   * operation.
   */
  read(t: Tensor): Promise<Uint8Array>;
  /** latent u32 [B,k], value and grad [B,k] in `real`. Valid until the codes are freed. */
  pairs(z: Codes): { readonly latent: Tensor; readonly value: Tensor; readonly grad: Tensor };

  /**
   * -> x [B,d]: columns `column` (default 0) to column + d of the rows of raw [m,w] (f16, bf16, f32
   * or f64) numbered by `rows` u32 [B], converted to `real`, then normalised with statistics of
   * each row in float64 (default: as they are); with `column` 0 t (not hyper) zeroed; bad. Where
   * bad has FULL: nothing, so that the step can be run again from its x. The normalisation is one
   * for a whole run, so a recorded step may hold it.
   */
  load(raw: Tensor, rows: Tensor, x: Tensor, t: Step, normalization?: Normalization, column?: number): void;
  /**
   * -> the codes of each selection; t.fired, from the live selection; t.sums.dead; t.active, of
   * "threshold"; t.bad. The pre-activations are encoder (x - preBias) + latentBias (untied: encoder
   * x + latentBias), computed once for all selections, and a selected value is exact. The live
   * selection is among all; there may be one more among the dead or wide, and one by "band". `age`
   * [n] decides which latents are dead; it is needed for a selection among the dead, and without it
   * sums.dead is 0. "topk" keeps at most hyper.rowK (from 1) among all. Of "batchtopk" this writes
   * the `capacity` highest of each row, which `reconcile` then cuts. Rules that may need more slots
   * than there are mark FULL; the codes are then incomplete.
   */
  encode(p: Params, x: Tensor, t: Step, selections: readonly Selection[], age?: Tensor): void;
  /**
   * -> z: what `rule` keeps of it when all ranks are compared: topk, of each row the k (`live`: at
   * most hyper.rowK) highest of all shards, the lower shard's latents being the lower ones;
   * batchtopk, the hyper.kept highest of all rows and shards, and t.cut; FULL where a row would
   * have needed more slots. `live`: these are the live codes, and t.fired is found from what is
   * left. A rule that looks at one latent at a time, or topk on one shard: nothing.
   */
  reconcile(rule: Rule, z: Codes, t: Step, live: boolean): void;
  /**
   * -> branch.err: W z, without bias; the shards' are to be summed. With a skip connection and `x`,
   * shard 0 adds skip x to plane 0.
   */
  decode(p: Params, branch: Branch, x?: Tensor): void;
  /**
   * -> branch.err, sums (added to), bad. `target` [B,dOut] is what is reconstructed, x in an
   * autoencoder. With `live`, branch is the dead one. Of a wide branch t has sums for itself. All
   * shards have the same err and so the same sums, but `active`, `tanh` and `dead`, which are of
   * their own latents; `dead` is the same on all replicas.
   */
  residual(p: Params, target: Tensor, t: Step, branch: Branch, live?: Branch): void;
  /**
   * -> the codes' gradient, bad. A latent reads the err plane of its first prefix. For the codes of
   * a band: a branch of them and the live err.
   */
  codeGrad(p: Params, branch: Branch, t: Step): void;
  /**
   * -> g, scaled: the true gradient of loss = mseScale (sum weight_g mse_g + wideCoef mse of the
   * wide branch) + auxCoef auxk_loss + sparsity loss (of which t.active is reduced over all ranks
   * by now), in a fixed order of summation, without float atomics; bad, when an element (or a bound
   * on it) is so large that its square does not fit `real`. Sums and `rows` are of all replicas,
   * and the gradient is this rank's part of the sum over all ranks (preBias) or replicas (the
   * others): the sum of err, which all ranks have, counts in rank 0; the pre-activation loss of the
   * dead in replica 0, or untied, where its column sums are of x and not in sums, for the replica's
   * own rows. skip is the same on all shards.
   */
  paramGrad(input: ParamGradInput): void;
  /**
   * -> t.sq; bad. Needed when clipping, or to report the norm. The part of this shard: preBias
   * counts in shard 0.
   */
  norm(p: Params, g: Grads, t: Step): void;
  /**
   * -> s. If bad has FULL: nothing. If bad: counters.skipped only. Else project (hyper.unitRows),
   * clip, Adam (every row, also of unused latents), unit decoder rows (hyper.unitRows), the running
   * mean `cut` (towards t.cut), the controller `sparsity` (by t.active), EMA (of what Adam moved;
   * the others are copied), ages. Of replicas, each may update a part of the rows of encoder and
   * decoder: operations on s find all as they must be, but who reads s calls `complete` before.
   */
  update(s: State, g: Grads, t: Step): void;
  /** -> s: every number of it as the updates have left it, on every replica. All ranks call it. */
  complete(s: State): void;

  /**
   * -> t: reduced over ranks, with the same bits on all of them. No peers: nothing. `narrow`: of a
   * sum in `real`.
   */
  allReduce(t: Tensor, op: ReduceOp, over: Over, narrow?: Narrowing): void;

  /**
   * A function that does what `step` does each time it is called: operations, always the same on
   * the same tensors, and nothing else (what changes is written before). An engine may call `step`
   * some times, remember its operations and not call it again.
   */
  record(step: () => void): () => void;
}
