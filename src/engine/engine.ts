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
import type { Normalization } from "../sae/math.ts";
import type { PerParam } from "../sae/params.ts";
import type { Rule } from "../sae/rule.ts";

export type { Over, ReduceOp } from "../collective/collective.ts";
export type { Dims } from "../sae/dims.ts";
export type { Normalization } from "../sae/math.ts";
export type { Rule } from "../sae/rule.ts";
export { COUNTERS, HYPER, type Hyper, NONE, SUMS } from "./contract/names.ts";

export type DType = "f64" | "f32" | "bf16" | "f16" | "u32" | "u8";

/** What an engine computes in; parameters, moments, codes and err are stored so. */
export type Real = "f64" | "f32";

/** Memory of an engine. Opaque: only the engine that made it may look inside. */
export interface Tensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/**
 * At most `capacity` pairs (latent, value > 0) per row, highest value first, the lower latent first
 * among equals, and the gradient of each value. Opaque; `pairs` spells them out. A row may use
 * fewer slots than there are: an unused slot has latent NONE, value 0 and gradient 0, comes after
 * the used ones, and no operation touches a weight for it.
 */
export interface Codes {
  readonly rows: number;
  readonly capacity: number;
}

/**
 * One of the two ways through the autoencoder. `err` [B,d] holds first the decoder's sum W z, then
 * (after `residual`) reconstruction minus target: live W z + b - x; dead W z + live.err. It and the
 * codes' gradient = decoder[latent] . err are stored unscaled; the factors of the loss are applied
 * by `paramGrad`.
 */
export interface Branch {
  readonly codes: Codes;
  readonly err: Tensor;
}

/** The parameters (sae/params.ts), all in the engine's `real`. */
export type Params = PerParam<Tensor>;

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
 * something is not finite; `sq` [1]: squared norm of the gradient after projection.
 */
export interface Step {
  readonly hyper: Tensor;
  readonly sums: Tensor;
  readonly fired: Tensor;
  readonly bad: Tensor;
  readonly sq: Tensor;
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
}

/** A selection before there is memory for it: `slots` is the capacity of its codes. */
export interface SelectionPlan {
  readonly rule: Rule;
  readonly among: "all" | "dead";
  readonly slots: number;
}

/**
 * One selection of `encode`. `among` "dead": only the latents that are dead as the step begins may
 * be selected.
 */
export interface Selection {
  readonly rule: Rule;
  readonly among: "all" | "dead";
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
  /**
   * Memory for the gradient of batches of at most `rows` rows, the same number on all replicas,
   * whose codes come from these selections. `dense` asks for whole encoder and decoder gradients,
   * which an engine may also keep unasked where replicas sum them.
   */
  grads(dims: Dims, rows: number, selections: readonly SelectionPlan[], dense: boolean): Grads;
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
   * -> x [B,d]: the rows of raw [m,d] (f16, bf16, f32 or f64) numbered by `rows` u32 [B], converted
   * to `real`, then normalised with statistics of each row in float64 (default: as they are); t
   * (not hyper) zeroed; bad. The normalisation is one for a whole run, so a recorded step may hold
   * it.
   */
  load(raw: Tensor, rows: Tensor, x: Tensor, t: Step, normalization?: Normalization): void;
  /**
   * -> the codes of each selection; t.fired, from the selections among all; t.sums.dead; t.bad. The
   * pre-activations are encoder (x - preBias) + latentBias, computed once for all selections, and a
   * selected value is its relu, exact. At most one selection is among all and at most one among the
   * dead. `age` [n] decides which latents are dead; it is needed for a selection among the dead,
   * and without it sums.dead is 0.
   */
  encode(p: Params, x: Tensor, t: Step, selections: readonly Selection[], age?: Tensor): void;
  /**
   * -> z: what `rule` keeps of it when all shards are compared (topk: of each row the k highest of
   * all shards; the lower shard's latents are the lower ones). With `t`, whose live codes these
   * are: t.fired of what is left. One shard, or a rule that looks at one latent at a time: nothing.
   */
  reconcile(rule: Rule, z: Codes, t?: Step): void;
  /** -> err: W z, without bias; the shards' are to be summed. */
  decode(p: Params, z: Codes, err: Tensor): void;
  /**
   * -> branch.err, sums (added to), bad. `target` [B,dOut] is what is reconstructed, x in an
   * autoencoder. With `live`, branch is the dead one. All shards have the same err and so the same
   * sums, but `active` and `dead`, which are of their own latents; `dead` is the same on all
   * replicas.
   */
  residual(p: Params, target: Tensor, t: Step, branch: Branch, live?: Branch): void;
  /** -> the codes' gradient, bad. */
  codeGrad(p: Params, branch: Branch, t: Step): void;
  /**
   * -> g, scaled: the true gradient of loss = mseScale mse + auxCoef auxk_loss, in a fixed order of
   * summation, without float atomics; bad, when an element (or a bound on it) is so large that its
   * square does not fit `real`. Sums and `rows` are of all replicas, and the gradient is this
   * rank's part of the sum over all ranks (preBias) or replicas (the others): the sum of err, which
   * all ranks have, counts in rank 0.
   */
  paramGrad(p: Params, x: Tensor, t: Step, live: Branch, dead: Branch | undefined, g: Grads): void;
  /**
   * -> t.sq; bad. Needed when clipping, or to report the norm. The part of this shard: preBias
   * counts in shard 0.
   */
  norm(p: Params, g: Grads, t: Step): void;
  /**
   * -> s. If bad: counters.skipped only. Else project, clip, Adam (every row, also of unused
   * latents), unit decoder rows, EMA, ages. Of replicas, each may update a part of the rows of
   * encoder and decoder: operations on s find all as they must be, but who reads s calls `complete`
   * before.
   */
  update(s: State, g: Grads, t: Step): void;
  /** -> s: every number of it as the updates have left it, on every replica. All ranks call it. */
  complete(s: State): void;

  /** -> t: reduced over ranks, with the same bits on all of them. No peers: nothing. */
  allReduce(t: Tensor, op: ReduceOp, over: Over): void;

  /**
   * A function that does what `step` does each time it is called: operations, always the same on
   * the same tensors, and nothing else (what changes is written before). An engine may call `step`
   * some times, remember its operations and not call it again.
   */
  record(step: () => void): () => void;
}
