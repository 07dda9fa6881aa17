/**
 * paramGrad, norm and update. What paramGrad leaves is here: for each latent the list of places
 * where it is on (lists.ts), from which its gradient rows are formed when they are needed
 * (kernels/gradients.cuh), and the rows of dead latents where those come out of products. What
 * replicas exchange for it, and who updates what, is in owned-rows.ts.
 */

import type { Elements } from "../../../collective/collective.ts";
import { paramEntries } from "../../../sae/params.ts";
import { mayOverflow, slotsFor } from "../../../sae/rule.ts";
import { SaettaError } from "../../../util/errors.ts";
import {
  type Branch,
  COUNTERS,
  type Dims,
  type Grads,
  type GradsPlan,
  type ParamGradInput,
  type Params,
  type State,
  type Step,
  SUMS,
} from "../../engine.ts";
import { type GradTensors, HeldGrads, NO_PARAMS } from "../../held-memory.ts";
import { slotsOf } from "../../selections.ts";
import { sumsLength } from "../../sums.ts";
import type { CudaContext } from "../context.ts";
import { ENTRY_BYTES, type Kernel, type KernelArguments, keepOf, SIZES, type StructOf, sizeOf } from "../contract.ts";
import type { Buffers } from "../driver/buffers.ts";
import type { Address } from "../driver/driver.ts";
import { WHERE } from "../driver/libraries.ts";
import { type CudaCodes, ownCodes } from "../memory/codes.ts";
import { centredRows, copyOf, copyToWrite, largestInput, wroteWithCopy } from "../memory/copies.ts";
import { errShape, planesOf, prefixesOf } from "../memory/prefixes.ts";
import { at, type CudaTensor, checked, checkStep, paramAddresses, stepAddresses } from "../memory/tensor.ts";
import {
  countedLatents,
  gatherOwned,
  gatherRows,
  MATRICES,
  ownedLatents,
  type Replication,
  type RowMatrix,
  rangesOf,
  replicationOf,
  type Share,
  sumToOwners,
} from "../replicas/owned-rows.ts";
import { type CodesAt, chunkOf, invert, type ListedBatch, SCALES_BYTES } from "./lists.ts";
import { denseCodes, eachDenseChunk } from "./reconstruct.ts";
import { inputColumns, skipGradient, sumOfDead, thresholdGradient } from "./small-gradients.ts";

/** Shared memory of kernels that go through lists. */
const STAGE_BYTES = SIZES.STAGES * SIZES.STAGED * ENTRY_BYTES;
/** The share of its decoder rows that a replica updates in a launch of their own. */
const FIRST_PART = 16;

/** The structure Gradients but for the rows that a kernel goes over. */
type Formable = Omit<StructOf<"Gradients">, "from" | "to" | "taken">;

/** What lists are made from: rows and codes, of all replicas where these exchange them. */
interface Listed {
  readonly B: number;
  readonly inputs: Address;
  readonly live: CodesAt;
  /** All planes. */
  readonly liveErr: Address;
  readonly dead: CodesAt | undefined;
  readonly deadErr: Address;
}

/** Whose gradient rows are in the scratch memory "formed rows". */
const formedBy = new WeakMap<CudaContext, CudaGrads>();

export class CudaGrads extends HeldGrads<CudaTensor> {
  /** What outlives an operation. */
  readonly #buffers: Buffers;
  readonly #replicas: number;
  /** Those whose rows lists are made from. */
  readonly #gathered: number;
  readonly #replication: Replication;
  /**
   * The latents whose rows this rank updates, those of them that it counts, and those that have
   * lists.
   */
  readonly #own: Share;
  readonly #counted: Share;
  readonly #listed: Share;
  readonly #chunk: number;
  readonly #dims: Dims;
  /** As the last paramGrad left it. */
  #structure: Formable | undefined;

  constructor(cuda: CudaContext, { dims, rows, selections }: GradsPlan, tensors: GradTensors<CudaTensor>) {
    super(tensors, rows);
    const { n } = dims;
    this.#dims = dims;
    this.#buffers = cuda.buffers();
    this.#replicas = cuda.exchange.sizeOf("replicas");
    // Slots at the start: no order of a sum depends on how many there have become since.
    const listed = selections
      .filter(({ rule }) => rule.kind !== "band")
      .map((plan) => ({ ...plan, slots: mayOverflow(plan.rule) ? slotsFor(plan.rule, n) : plan.slots }));
    this.#replication = replicationOf(cuda, dims, listed, rows, tensors.encoder !== undefined);
    this.#gathered = this.#replication === "rows" ? this.#replicas : 1;
    this.#own = ownedLatents(cuda, n);
    this.#counted = countedLatents(cuda, this.#own, n);
    this.#listed = this.#replication === "gradients" ? { first: 0, end: n, rest: n } : this.#own;
    this.#chunk = chunkOf(this.#most * slotsOf(listed));
  }

  /** Rows that lists can be made from. */
  get #most(): number {
    return this.#gathered * this.rows;
  }

  /** The longer of a row's two sides. */
  get #widest(): number {
    return Math.max(this.#dims.dIn, this.#dims.dOut);
  }

  paramGrad(cuda: CudaContext, input: ParamGradInput): void {
    const { p, x, t, live, wide } = input;
    const dead = wide?.branch ?? input.dead;
    const { dIn, n, dOut } = this.#dims;
    const [B] = x.shape as [number];
    const { rank, replica } = cuda.exchange.collective.grid;
    this.checkRows(B, WHERE);
    checkStep(t, n, dOut, planesOf(live));
    paramAddresses(p, n, dIn, dOut);
    const { hyper, sums, bad } = stepAddresses(t);
    const encoder = copyOf(cuda, checked(p.encoder, "f32", n, dIn));
    const inputs = centredRows(cuda, p, x, bad, true);
    const deadCodes = dead === undefined ? undefined : ownCodes(dead.codes, B);
    const strategy = deadCodes?.strategy.kind;
    const own = this.#ownRows(cuda, B, inputs, live, strategy === "pairs" ? dead : undefined);
    const from = this.#replication === "rows" ? this.#rowsOfAll(cuda, own, live) : own;
    const batch = this.#batch(input, from.B);
    const lists = invert(cuda, this.#buffers, t, batch, from.live, from.dead);
    const products = strategy === "dense" ? this.#products(cuda, dead!, deadCodes!, B, inputs, bad) : undefined;
    const structure: Formable = {
      ...{ n, dIn, dOut, chunk: this.#chunk, cap: products?.capacity ?? 0 },
      ...{ start: lists.start, pieceAt: lists.pieceAt, entries: lists.entries, pieceRows: lists.pieceRows },
      ...{ xc16: from.inputs, liveErr16: from.liveErr, deadErr16: from.deadErr },
      deadSlot: products?.slot ?? 0,
      deadEncoder: products?.encoder ?? 0,
      deadDecoder: products?.decoder ?? 0,
      age: this.#replication === "gradients" && replica > 0 ? 0 : batch.age,
      deadColumns:
        p.untied && batch.age !== 0 ? inputColumns(cuda, this.#buffers, x, t) : sums + 8 * (SUMS.length + dOut),
      scales: lists.scales,
      formedEncoder: this.encoder?.address ?? 0,
      formedDecoder: this.decoder?.address ?? 0,
    };
    this.#structure = structure;
    const g = { ...structure, age: batch.age, from: 0, to: 2 * n, taken: 0 };
    const pieceTotals = lists.totals;
    cuda.kernels.launch(
      "list_long",
      { blocks: 1024, threads: cuda.rowThreads(this.#widest) },
      { g, pieceOf: lists.pieceOf, pieceCount: lists.pieceCount, pieceTotals },
    );
    const counted = this.#replication === "gradients" ? this.#listed : this.#counted;
    const deadRows = batch.age !== 0 && (this.#replication !== "gradients" || replica === 0) ? 1 : 0;
    const blocks = Math.ceil(n / SIZES.BIAS_LATENTS);
    const biasPartial = p.untied ? 0 : cuda.scratch.get("sums of biases", 8 * blocks * dIn);
    cuda.kernels.launch(
      "list_bias",
      { blocks, threads: SIZES.BIAS_LATENTS * SIZES.BIAS_SHARE },
      {
        ...{ g, encoder, sums, wideSums: batch.wideSums, pieceTotals, deadBias: products?.bias ?? 0 },
        ...{ latentBias: this.latentBias.address, biasPartial, bad, counted },
        ...{ largest: p.untied ? largestInput(cuda) : 0, prefixes: batch.prefixes, deadRows, hyper },
      },
    );
    const columns = planesOf(live) > 1 ? 2 * dOut : 0;
    cuda.kernels.launch(
      "list_prebias",
      { blocks: Math.ceil(dOut / 32), threads: 1024 },
      {
        ...{ biasPartial, blocks: p.untied ? 0 : blocks, d: dOut, scales: lists.scales },
        ...{ sums: sums + 8 * (SUMS.length + columns), preBias: this.preBias.address, bad },
        wideColumns: batch.wideSums === 0 ? 0 : batch.wideSums + 8 * SUMS.length,
        counts: rank === 0 ? 1 : 0,
      },
    );
    if (this.threshold !== undefined) {
      const ofRows = { ...batch, B, most: this.rows, replicas: 1 };
      thresholdGradient(cuda, this.#buffers, input, ofRows, { g, counted, deadRows, gradient: this.threshold.address });
    }
    if (this.skip !== undefined) skipGradient(cuda, this.#dims, { ...own, skip: this.skip, scales: lists.scales, bad });
    if (formedBy.get(cuda) === this) formedBy.delete(cuda);
    if (this.encoder !== undefined) this.#form(cuda, structure, 0, 2 * n);
    for (const tensor of this.tensors) tensor.wrote();
  }

  /** What lists are made of. */
  #batch({ p, live, wide, age }: ParamGradInput, B: number): ListedBatch {
    const { dIn, n, dOut } = this.#dims;
    const sparsity = p.sparsity === undefined ? 0 : at(p.sparsity, "f32", 2);
    return {
      ...{ B, most: this.#most, replicas: this.#gathered, n, dIn, dOut },
      ...{ chunk: this.#chunk, listed: this.#listed, prefixes: prefixesOf(live, n), sparsity },
      age: sparsity === 0 || age === undefined ? 0 : at(age, "u32", n),
      wideSums: wide === undefined ? 0 : at(wide.sums, "f64", sumsLength(dOut)),
      isBand: false,
    };
  }

  norm(cuda: CudaContext, { decoder }: Params, t: Step): void {
    const { n, dOut } = this.#dims;
    const { hyper, sq, bad } = stepAddresses(t);
    const weights = at(decoder, "f32", n, dOut);
    const squares = cuda.scratch.get("squares of rows", 16 * n);
    for (const wait of this.#sumRows(cuda)) wait();
    const keep = keepOf(this.#replication === "gradients" || this.encoder !== undefined ? "formed" : "formAndKeep");
    const rows = this.encoder === undefined ? this.#kept(cuda) : this.#left;
    const shared = STAGE_BYTES + 4 * dOut;
    for (const [from, to] of this.#ranges)
      this.#eachRow(cuda, "norm_rows", shared, rows, [from, to], { decoder: weights, keep, hyper, squares, bad });
    if (this.encoder === undefined) formedBy.set(cuda, this);
    const { collective } = cuda.exchange;
    const skip = this.skip === undefined ? 0 : cuda.scratch.get("squares of the skip", 8 * SIZES.SKIP_BLOCKS);
    if (this.skip !== undefined) {
      const args = { skip: this.skip.address, count: this.skip.size / 4, partial: skip };
      cuda.kernels.launch("skip_squares", { blocks: SIZES.SKIP_BLOCKS, threads: 256 }, args);
    }
    cuda.kernels.launch(
      "norm_sum",
      { blocks: 1, threads: 1024 },
      {
        ...{ squares, latentBias: this.latentBias.address, preBias: this.preBias.address, n, d: dOut, sq, bad },
        ...{ threshold: this.threshold?.address ?? 0, skip },
        ...{ counted: this.#counted, counts: collective.grid.rank === 0 ? 1 : 0 },
      },
    );
    if (this.#replicas > 1)
      collective.allReduce({ at: sq, count: 1, dtype: "f64" }, "sum", "replicas", cuda.device.stream);
  }

  update(cuda: CudaContext, s: State, t: Step): void {
    const { dIn, n, dOut } = this.#dims;
    const { hyper, fired, bad, sq, cut, active } = stepAddresses(t);
    const weights = {
      p: paramAddresses(s.params, n, dIn, dOut),
      m: paramAddresses(s.m, n, dIn, dOut),
      v: paramAddresses(s.v, n, dIn, dOut),
      ema: s.ema === undefined ? NO_PARAMS : paramAddresses(s.ema, n, dIn, dOut),
    };
    const [age, counters] = [at(s.age, "u32", n), at(s.counters, "f64", COUNTERS.length)];
    const [encoder, decoder] = [checked(s.params.encoder, "f32"), checked(s.params.decoder, "f32")];
    const copies = { encoder16: copyOf(cuda, encoder), decoder16: copyOf(cuda, decoder) };
    const numbers = cuda.scratch.get("numbers of Adam", sizeOf("Numbers"));
    cuda.kernels.launch(
      "update_begin",
      { blocks: 1, threads: 1 },
      {
        ...{
          hyper,
          sq,
          bad,
          counters,
          hasEma: s.ema === undefined ? 0 : 1,
          ready: this.#structure === undefined ? 0 : 1,
        },
        ...{ firstLatent: cuda.exchange.collective.grid.shard * n, numbers },
      },
    );
    checked(s.counters, "f64").wrote();
    // A step whose codes were full has no gradients where it is the first.
    if (this.#structure === undefined) return;
    const summed = this.#sumRows(cuda);
    const isKept = formedBy.get(cuda) === this;
    const formed = isKept || this.encoder !== undefined ? 1 : 0;
    const rows = isKept ? this.#kept(cuda) : this.#left;
    const widest = this.#widest;
    const covered = cuda.coversRow(dIn) && cuda.coversRow(dOut);
    const shared = STAGE_BYTES + (covered ? 24 * SIZES.ROW_WIDTH * cuda.rowThreads(widest) : 4 * widest);
    const apply = (from: number, to: number) =>
      this.#eachRow(cuda, "update_rows", shared, rows, [from, to], { formed, ...weights, ...copies, numbers });
    const given: (() => void)[] = [];
    if (this.#replicas === 1) apply(0, 2 * n);
    else {
      for (const [side, matrix] of MATRICES.entries()) {
        summed[side]?.();
        for (const [from, to] of rangesOf(this.#own, n)) {
          // Blocks that exchange the encoder's rows need whole multiprocessors: they find some as a
          // short part of the decoder's ends.
          const pause = side === 0 ? from : from + Math.ceil((to - from) / FIRST_PART);
          if (from < pause) apply(side * n + from, side * n + pause);
          if (pause < to) apply(side * n + pause, side * n + to);
        }
        // The decoder's rows are updated meanwhile.
        const width = (matrix === "encoder" ? dIn : dOut) * cuda.bytes;
        const give = (stream: Address) => gatherOwned(cuda, [copies[`${matrix}16`]], n, width, stream);
        given.push(cuda.exchange.overlap(`the exchange of ${matrix} rows`, give));
      }
    }
    cuda.kernels.launch(
      "update_small",
      { blocks: Math.ceil((n + dOut + 1) / 256), threads: 256 },
      {
        ...{ n, d: dOut, ...weights, latentBias: this.latentBias.address, preBias: this.preBias.address },
        ...{ threshold: this.threshold?.address ?? 0, age, fired, hyper, cut, active, numbers },
      },
    );
    const { skip } = s.params;
    if (skip !== undefined && this.skip !== undefined) {
      const count = dIn * dOut;
      const skip16 = copyToWrite(cuda, checked(skip, "f32"));
      const args = { skip: this.skip.address, count, ...weights, skip16, numbers };
      cuda.kernels.launch("update_skip", { blocks: Math.ceil(count / 256), threads: 256 }, args);
    }
    for (const wait of given) wait();
    for (const tensor of [s.params, s.m, s.v, s.ema].flatMap((p) =>
      p === undefined ? [] : paramEntries(p).map(([, , tensor]) => tensor),
    )) {
      if (tensor === encoder || tensor === decoder || tensor === skip) wroteWithCopy(checked(tensor, "f32"));
      else checked(tensor, "f32").wrote();
    }
    checked(s.age, "u32").wrote();
  }

  release(): void {
    this.#buffers.free();
  }

  /** What the last paramGrad left. */
  get #left(): Formable {
    if (this.#structure === undefined)
      throw new SaettaError("gradients are used that no paramGrad has made", { where: WHERE });
    return this.#structure;
  }

  /** The same, with where formed rows are kept when nobody asked for them. */
  #kept(cuda: CudaContext): Formable {
    const { dIn, n, dOut } = this.#dims;
    const rows = cuda.scratch.get("formed rows", 4 * n * (dIn + dOut));
    return { ...this.#left, formedEncoder: rows, formedDecoder: rows + 4 * n * dIn };
  }

  /** The rows that this rank updates, encoder rows before decoder rows. */
  get #ranges(): [from: number, to: number][] {
    const { n } = this.#dims;
    if (this.#replicas === 1) return [[0, 2 * n]];
    const ranges = rangesOf(this.#own, n);
    return [...ranges, ...ranges.map(([from, to]): [number, number] => [n + from, n + to])];
  }

  /** Rows [from, to) of both matrices to where they are asked for, or kept. */
  #form(cuda: CudaContext, structure: Formable, from: number, to: number): void {
    this.#eachRow(cuda, "gradient_rows", STAGE_BYTES, structure, [from, to], {});
  }

  /** A kernel whose blocks stay and take one row after the other of rows [from, to). */
  #eachRow<K extends Kernel & ("gradient_rows" | "norm_rows" | "update_rows")>(
    cuda: CudaContext,
    kernel: K,
    shared: number,
    structure: Formable,
    [from, to]: readonly [number, number],
    more: Omit<KernelArguments<K>, "g">,
  ): void {
    const threads = cuda.rowThreads(this.#widest);
    const blocks = Math.min(to - from, cuda.kernels.resident(kernel, threads, shared));
    const taken = cuda.scratch.get("rows taken", 4);
    cuda.device.fill(taken, 0, 4);
    const args = { ...more, g: { ...structure, from, to, taken } } as unknown as KernelArguments<K>;
    cuda.kernels.launch(kernel, { blocks, threads, shared }, args);
  }

  /**
   * Where replicas exchange gradient rows, and have not yet: forms them, encoder rows first, and
   * sums each replica's share beside the operations. Returns what makes those wait for the
   * encoder's and the decoder's.
   */
  #sumRows(cuda: CudaContext): (() => void)[] {
    if (this.#replication !== "gradients" || this.encoder !== undefined || formedBy.get(cuda) === this) return [];
    formedBy.set(cuda, this);
    const { dIn, n, dOut } = this.#dims;
    const rows = this.#kept(cuda);
    return MATRICES.map((matrix, side) => {
      this.#form(cuda, rows, side * n, side * n + n);
      const [formed, d] = side === 0 ? [rows.formedEncoder, dIn] : [rows.formedDecoder, dOut];
      return cuda.exchange.overlap(`the sums of ${matrix} gradients`, (stream) =>
        sumToOwners(cuda, formed, n, d, stream),
      );
    });
  }

  /** This replica's rows and codes. `dead`: where they go by lists. */
  #ownRows(cuda: CudaContext, B: number, inputs: Address, live: Branch, dead: Branch | undefined): Listed {
    const err = (branch: Branch | undefined) =>
      branch === undefined ? 0 : copyOf(cuda, checked(branch.err, "f32", ...errShape(branch, B, this.#dims.dOut)));
    const codes = ({ codes: z }: Branch) => ({ ...ownCodes(z, B).from(), k: z.capacity });
    return { B, inputs, live: codes(live), liveErr: err(live), dead: dead && codes(dead), deadErr: err(dead) };
  }

  /** Those of all replicas. */
  #rowsOfAll(cuda: CudaContext, own: Listed, live: Branch): Listed {
    const { dIn, dOut } = this.#dims;
    const row = dOut * cuda.bytes;
    const partsOf = (branch: string, { latent, value, grad, k }: CodesAt, err: Address, planes = 1): RowMatrix[] => [
      { name: `${branch} residuals`, at: err, width: row, planes },
      { name: `${branch} latents`, at: latent, width: 4 * k, filler: 0xff },
      { name: `${branch} values`, at: value, width: 4 * k },
      { name: `${branch} gradients`, at: grad, width: 4 * k },
    ];
    const parts = [
      { name: "centred rows", at: own.inputs, width: dIn * cuda.bytes },
      ...partsOf("live", own.live, own.liveErr, planesOf(live)),
      ...(own.dead === undefined ? [] : partsOf("dead", own.dead, own.deadErr)),
    ];
    const all = gatherRows(cuda, parts, own.B, this.rows);
    const codesAt = (first: number, k: number): CodesAt => ({
      latent: all[first]!,
      value: all[first + 1]!,
      grad: all[first + 2]!,
      k,
    });
    return {
      B: this.#most,
      inputs: all[0]!,
      liveErr: all[1]!,
      live: codesAt(2, own.live.k),
      dead: own.dead && codesAt(6, own.dead.k),
      deadErr: all[5] ?? 0,
    };
  }

  /**
   * Gradient rows of the dead without the factor of the loss: decoder = zd^T err, encoder = gd^T (x
   * - preBias).
   */
  #products(cuda: CudaContext, branch: Branch, codes: CudaCodes, B: number, inputs: number, bad: number) {
    const { dIn, dOut } = this.#dims;
    if (codes.strategy.kind !== "dense")
      throw new SaettaError("these codes have no list of the dead", { where: WHERE });
    const { strategy } = codes;
    const { capacity, dead } = strategy;
    const err = copyOf(cuda, checked(branch.err, "f32", B, dOut));
    const decoder = this.#buffers.get("decoder gradients of the dead", 4 * capacity * dOut);
    const encoder = this.#buffers.get("encoder gradients of the dead", 4 * capacity * dIn);
    const bias = this.#buffers.get("bias gradients of the dead", 8 * capacity);
    const partial = cuda.scratch.get("sums of dead biases", 8 * SIZES.DENSE_PARTS * capacity);
    eachDenseChunk(cuda, B, capacity, (first, C) => {
      const shape = { m: capacity, k: C, aTransposed: true, out: "f32", add: first > 0 } as const;
      const values = denseCodes(cuda, codes, strategy, "value", first, C);
      cuda.cublas.multiply({ ...shape, n: dOut, a: values, b: err + first * dOut * cuda.bytes, c: decoder });
      const grads = denseCodes(cuda, codes, strategy, "grad", first, C);
      cuda.cublas.multiply({ ...shape, n: dIn, a: grads, b: inputs + first * dIn * cuda.bytes, c: encoder });
      const launch = { blocks: [Math.ceil(capacity / 256), SIZES.DENSE_PARTS] as const, threads: 256 };
      cuda.kernels.launch("dense_bias", launch, { gd: grads, C, cap: capacity, first: first === 0 ? 1 : 0, partial });
    });
    const scales = this.#buffers.get("factors of the loss", SCALES_BYTES);
    const launch = { blocks: Math.ceil(capacity / 8), threads: 256 };
    cuda.kernels.launch("dense_check", launch, {
      ...{ deadEncoder: encoder, deadDecoder: decoder, partial, cap: capacity, dIn, dOut },
      ...{ count: dead.counts, scales, deadBias: bias, bad },
    });
    if (this.#replication === "rows") {
      const ofRows = (at: Address, d: number): Elements => ({ at, count: capacity * d, dtype: "f32" });
      sumOfDead(cuda, [ofRows(encoder, dIn), ofRows(decoder, dOut), { at: bias, count: capacity, dtype: "f64" }]);
    }
    return { capacity, slot: dead.slot, encoder, decoder, bias };
  }
}

/** Gradients that this engine made, not freed. */
export function ownGrads(g: Grads): CudaGrads {
  if (!(g instanceof CudaGrads)) throw new SaettaError("gradients of another engine were given to the cuda engine");
  if (g.freed) throw new SaettaError("gradients were used after they were freed", { where: WHERE });
  return g;
}
