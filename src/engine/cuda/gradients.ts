/**
 * paramGrad, norm and update. What paramGrad leaves is here: for each latent the list of places where it is on, from which its gradient rows are formed when they
 * are needed (kernels/gradients.cuh), and the rows of dead latents where those come out of products.
 */

import { SaettaError } from "../../util/errors.ts";
import { COUNTERS, type Grads, HYPER, type Params, type Path, type Shape, type State, type Step, type Tensor } from "../engine.ts";
import { sumsLength } from "../sums.ts";
import { WHERE } from "./libraries.ts";
import { type Machine, Room } from "./machine.ts";
import { at, type CudaCodes, type CudaTensor, checked, type Gathering, ownCodes, paramAddresses, stepAddresses } from "./memory.ts";
import { denseCodes, eachDenseChunk } from "./paths.ts";

/** Bytes of an entry of a list, and of the totals of a piece of a long one. */
const ENTRY_BYTES = 16;
const TOTALS_BYTES = 24;
/** Shared memory of kernels that go through lists: STAGE_BYTES. */
const STAGE_BYTES = 3 * 64 * ENTRY_BYTES;
/** A part of the rows that is counted in 16 bits. */
const MOST_ROWS_A_PART = 65535;
/** Entries of a piece of a long list, at least, and pieces in all. */
const SHORTEST_PIECE = 256;
const PIECES = 4096;
const LATENTS_A_BLOCK = 32;
const DENSE_PARTS = 32;
/** Shared memory of list_fill besides its counts. */
const FILL_BYTES = 8192;

/** Pieces in which replicas sum gradient rows while others are formed and applied; half of them encoder rows. Smaller ones are not worth the launches. */
const MOST_GATHERED = 8;
const SMALLEST_GATHERED = 4 * 1024 * 1024;

/** How many numbers lists of the shape can hold, in which pieces: the same however much of it is used. */
export class CudaGrads implements Grads, Gathering {
  readonly preBias: CudaTensor;
  readonly latentBias: CudaTensor;
  readonly encoder?: CudaTensor;
  readonly decoder?: CudaTensor;
  readonly rows: number;
  freed = false;
  readonly #m: Machine;
  readonly #room: Room;
  /** Of the pieces: formed, summed. */
  readonly #events: number[] = [];
  /** Rows that the last paramGrad did not form yet; "sum": replicas are to sum them. */
  #waiting: "form" | "sum" | undefined;
  #sums = 0;
  /** Entries of a list that are summed at once. */
  readonly #chunk: number;
  /** Arguments of the structure Gradients, as the last paramGrad left them. */
  #structure: readonly number[] | undefined;

  constructor(m: Machine, shape: Shape, rows: number, tensors: Pick<CudaGrads, "preBias" | "latentBias" | "encoder" | "decoder">) {
    this.preBias = tensors.preBias;
    this.latentBias = tensors.latentBias;
    if (tensors.encoder !== undefined) this.encoder = tensors.encoder;
    if (tensors.decoder !== undefined) this.decoder = tensors.decoder;
    this.rows = rows;
    this.#m = m;
    for (const tensor of [tensors.encoder, tensors.decoder]) if (tensor !== undefined) tensor.grads = this;
    this.#room = new Room(m);
    this.#chunk = Math.max(SHORTEST_PIECE, Math.ceil((rows * (shape.k + shape.auxk)) / PIECES));
  }

  get #shape(): [number, number] {
    return [this.latentBias.shape[0]!, this.preBias.shape[0]!];
  }

  paramGrad(m: Machine, p: Params, x: Tensor, t: Step, live: Path, dead: Path | undefined): void {
    const [n, d] = this.#shape;
    const [B] = x.shape as [number];
    if (B > this.rows) throw new SaettaError(`a batch of ${B} rows, the gradients have room for ${this.rows}`, { where: WHERE });
    checkStep(t, n, d);
    paramAddresses(p, n, d);
    const { sums, bad } = stepAddresses(t);
    const encoder = m.copyOf(checked(p.encoder, "f32", n, d));
    const inputs = m.centred(checked(x, "f32", B, d), checked(p.preBias, "f32", d), bad, true);
    const errors = (path: Path) => m.copyOf(checked(path.err, "f32", B, d));
    const deadCodes = dead === undefined ? undefined : ownCodes(dead.codes, B);
    const way = deadCodes?.way.kind;
    const inLists = way === "pairs" ? deadCodes : undefined;
    const lists = this.#invert(m, t, B, ownCodes(live.codes, B), inLists);
    const products = way === "dense" ? this.#products(m, dead!, deadCodes!, B, inputs, bad) : undefined;
    this.#structure = [
      ...[n, d, this.#chunk, products?.capacity ?? 0, 0, 2 * n, lists.start, lists.pieceAt, lists.entries, lists.pieceRows],
      ...[inputs, errors(live), inLists === undefined ? 0 : errors(dead!)],
      ...[products?.slot ?? 0, products?.encoder ?? 0, products?.decoder ?? 0, lists.scales],
      ...[this.encoder?.address ?? 0, this.decoder?.address ?? 0],
    ];
    const [biases, preBias] = [this.latentBias.address, this.preBias.address];
    m.kernels.launch(
      "list_long",
      { blocks: 1024, threads: m.threads(d) },
      ...this.#structure,
      lists.pieceOf,
      lists.pieceCount,
      lists.totals,
    );
    const blocks = Math.ceil(n / LATENTS_A_BLOCK);
    const partial = m.room.get("sums of biases", 8 * blocks * d);
    const own = [encoder, sums, lists.totals, products?.bias ?? 0, biases, partial, bad];
    m.kernels.launch("list_bias", { blocks, threads: 256 }, ...this.#structure, ...own);
    m.kernels.launch(
      "list_prebias",
      { blocks: Math.ceil(d / 32), threads: 1024 },
      partial,
      blocks,
      d,
      sums,
      lists.scales,
      preBias,
      bad,
      m.ranks.collective.grid.rank === 0 ? 1 : 0,
    );
    if (m.formedBy === this) m.formedBy = undefined;
    if (this.encoder !== undefined) {
      this.#waiting = "form";
      this.#sums = 0;
      if (m.ranks.sizeOf("replicas") === 1) this.settle();
    }
    for (const tensor of [this.preBias, this.latentBias, this.encoder, this.decoder]) if (tensor !== undefined) m.wrote(tensor);
  }

  holdsBack(t: CudaTensor, op: string, over: string): boolean {
    const own = t === this.encoder || t === this.decoder;
    if (!own || this.#waiting === undefined || op !== "sum" || over !== "replicas") return false;
    this.#sums++;
    if (this.#sums === 2) this.#waiting = "sum";
    return true;
  }

  settle(): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting === undefined) return;
    const m = this.#m;
    const [n, d] = this.#shape;
    this.#form(m, 0, 2 * n);
    if (waiting !== "sum") return;
    for (const each of [this.encoder, this.decoder]) {
      m.ranks.collective.allReduce({ at: each!.address, count: n * d, dtype: "f32" }, "sum", "replicas", m.device.stream);
    }
  }

  norm(m: Machine, decoder: Tensor, t: Step): void {
    this.settle();
    const [n, d] = this.#shape;
    const { sq, bad } = stepAddresses(t);
    const weights = at(decoder, "f32", n, d);
    const squares = m.room.get("squares of rows", 16 * n);
    // Formed once and kept, for the update to come.
    const keep = this.encoder === undefined ? 1 : 2;
    const shared = STAGE_BYTES + 4 * d;
    const grid = { blocks: this.#resident(m, "norm_rows", shared), threads: m.threads(d), shared };
    m.kernels.launch("norm_rows", grid, ...this.#formed(m, keep === 1), weights, keep, squares, bad);
    if (keep === 1) m.formedBy = this;
    const counts = m.ranks.collective.grid.shard === 0 ? 1 : 0;
    m.kernels.launch(
      "norm_sum",
      { blocks: 1, threads: 1024 },
      squares,
      this.latentBias.address,
      this.preBias.address,
      n,
      d,
      sq,
      bad,
      counts,
    );
  }

  update(m: Machine, s: State, t: Step): void {
    const [n, d] = this.#shape;
    checkStep(t, n, d);
    const { hyper, fired, bad, sq } = stepAddresses(t);
    const [params = [], first = [], second = []] = [s.params, s.m, s.v].map((p): readonly number[] =>
      paramAddresses(p, n, d),
    ) as unknown as readonly (readonly number[])[];
    const ema = s.ema === undefined ? [0, 0, 0, 0] : paramAddresses(s.ema, n, d);
    const [age, counters] = [at(s.age, "u32", n), at(s.counters, "f64", COUNTERS.length)];
    const [encoder, decoder] = [checked(s.params.encoder, "f32"), checked(s.params.decoder, "f32")];
    const copies = [m.copyOf(encoder), m.copyOf(decoder)];
    const numbers = m.room.get("numbers of Adam", 64);
    m.kernels.launch(
      "update_begin",
      { blocks: 1, threads: 1 },
      hyper,
      sq,
      bad,
      counters,
      s.ema === undefined ? 0 : 1,
      m.ranks.collective.grid.shard * n,
      numbers,
    );
    const isFormed = m.formedBy === this;
    const weights = [...params, ...first, ...second, ...ema];
    const threads = m.threads(d);
    const shared = STAGE_BYTES + (m.covers(d) ? 24 * m.wide * threads : 4 * d);
    const formed = isFormed || this.encoder !== undefined ? 1 : 0;
    const apply = (from: number, to: number) => {
      const grid = { blocks: Math.min(to - from, m.kernels.resident("update_rows", threads, shared)), threads, shared };
      m.kernels.launch("update_rows", grid, ...within(this.#formed(m, isFormed), from, to), formed, ...weights, ...copies, numbers);
    };
    if (this.#waiting === "sum") {
      this.#waiting = undefined;
      this.#gather(m, apply);
    } else {
      this.settle();
      apply(0, 2 * n);
    }
    const biases = [this.latentBias.address, this.preBias.address];
    m.kernels.launch("update_small", { blocks: Math.ceil((n + d) / 256), threads: 256 }, n, d, ...weights, ...biases, age, fired, numbers);
    for (const tensor of [s.params, s.m, s.v, s.ema].flatMap((p) => (p === undefined ? [] : (Object.values(p) as Tensor[])))) {
      m.wrote(checked(tensor, "f32"), tensor === encoder || tensor === decoder);
    }
    m.wrote(checked(s.age, "u32"));
    m.wrote(checked(s.counters, "f64"));
  }

  free(): void {
    for (const event of this.#events) this.#m.device.driver.attempt("cuEventDestroy_v2", event);
    this.#room.free();
    this.freed = true;
  }

  /** Rows [from, to) of both matrices to where they are asked for. */
  #form(m: Machine, from: number, to: number): void {
    const [, d] = this.#shape;
    if (this.#structure === undefined) throw new SaettaError("gradients are used that no paramGrad has made", { where: WHERE });
    const threads = m.threads(d);
    const blocks = Math.min(to - from, m.kernels.resident("gradient_rows", threads, STAGE_BYTES));
    m.kernels.launch("gradient_rows", { blocks, threads, shared: STAGE_BYTES }, ...within(this.#structure, from, to));
  }

  /** Rows are formed, summed over the replicas and applied, piece by piece: while one is on its way, the next is formed and the one before applied. */
  #gather(m: Machine, apply: (from: number, to: number) => void): void {
    const [n, d] = this.#shape;
    const { driver, stream, exchange } = m.device;
    const half = Math.max(1, Math.min(MOST_GATHERED / 2, Math.floor((4 * n * d) / SMALLEST_GATHERED)));
    const bounds = [0, 1].flatMap((side) => Array.from({ length: half }, (_, i) => side * n + Math.floor((i * n) / half)));
    const pieces = bounds.map((from, i) => ({ from, to: bounds[i + 1] ?? 2 * n }));
    while (this.#events.length < 2 * pieces.length) this.#events.push(m.device.event());
    const finish = (i: number) => {
      driver.call("waiting for gradient rows of the replicas", "cuStreamWaitEvent", stream, this.#events[2 * i + 1]!, 0);
      apply(pieces[i]!.from, pieces[i]!.to);
    };
    pieces.forEach(({ from, to }, i) => {
      const [formed, summed] = [this.#events[2 * i]!, this.#events[2 * i + 1]!];
      this.#form(m, from, to);
      driver.call("marking gradient rows as formed", "cuEventRecord", formed, stream);
      driver.call("waiting for gradient rows", "cuStreamWaitEvent", exchange, formed, 0);
      const [matrix, first] = from < n ? [this.encoder!, from] : [this.decoder!, from - n];
      const rows = { at: matrix.address + 4 * first * d, count: (to - from) * d, dtype: "f32" } as const;
      m.ranks.collective.allReduce(rows, "sum", "replicas", exchange);
      driver.call("marking gradient rows as summed", "cuEventRecord", summed, exchange);
      if (i > 0) finish(i - 1);
    });
    finish(pieces.length - 1);
  }

  /** The structure, with where formed rows are kept when nobody asked for them. */
  #formed(m: Machine, kept: boolean): readonly number[] {
    if (this.#structure === undefined) throw new SaettaError("gradients are used that no paramGrad has made", { where: WHERE });
    if (!kept) return this.#structure;
    const [n, d] = this.#shape;
    const rows = m.room.get("formed rows", 8 * n * d);
    return [...this.#structure.slice(0, -2), rows, rows + 4 * n * d];
  }

  #resident(m: Machine, kernel: "norm_rows", shared: number): number {
    const [n, d] = this.#shape;
    return Math.min(2 * n, m.kernels.resident(kernel, m.threads(d), shared));
  }

  /** The lists, live before dead. `dead`: undefined where they do not go by lists. */
  #invert(m: Machine, t: Step, B: number, live: CudaCodes, dead: CudaCodes | undefined) {
    const [n, d] = this.#shape;
    const { hyper, sums } = stepAddresses(t);
    const parts = Math.max(Math.min(128, Math.max(1, Math.ceil(B / 16))), Math.ceil(B / MOST_ROWS_A_PART));
    const rowsPerPart = Math.ceil(B / parts);
    const allParts = parts * (dead === undefined ? 1 : 2);
    const width = 2 * Math.ceil(Math.min(n, 65536, (m.device.shared - FILL_BYTES - 1024) >> 1) / 2);
    const ranges = Math.ceil(n / width);
    const capacity = this.rows * (live.k + (dead?.k ?? 0));
    const pieces = 2 * Math.ceil(capacity / this.#chunk) + 1;
    const counts = m.room.get("counts of lists", 4 * allParts * n);
    const totals = m.room.get("lengths of lists", 4 * n);
    const lists = {
      start: this.#room.get("starts of lists", 4 * (n + 1)),
      pieceAt: this.#room.get("pieces of lists", 4 * n),
      entries: this.#room.get("entries of lists", ENTRY_BYTES * capacity),
      pieceRows: this.#room.get("rows of pieces", 8 * pieces * d),
      scales: this.#room.get("factors of the loss", 16),
      pieceOf: m.room.get("latents of pieces", 4 * pieces),
      pieceCount: m.room.get("number of pieces", 4),
      totals: m.room.get("totals of pieces", TOTALS_BYTES * pieces),
    };
    const grid = { blocks: [ranges, allParts] as const, threads: 256 };
    const [a, b] = [live.from(), dead?.from()];
    const dead32 = [b?.latent ?? 0, b?.value ?? 0, b?.grad ?? 0] as const;
    const sizes = [B, rowsPerPart, parts, n, width];
    const auxk = dead?.k ?? 0;
    m.kernels.launch("list_count", { ...grid, shared: 2 * width }, a.latent, live.k, dead32[0], auxk, ...sizes, counts);
    m.kernels.launch("list_prefix", { blocks: Math.ceil(n / 32), threads: [32, 8] }, counts, allParts, n, totals);
    const found = [lists.start, lists.pieceAt, lists.pieceOf, lists.pieceCount, lists.scales];
    m.kernels.launch("list_scan", { blocks: 1, threads: 1024 }, totals, n, d, this.#chunk, hyper, sums, ...found);
    m.kernels.launch(
      "list_fill",
      { ...grid, shared: 2 * width + FILL_BYTES },
      ...[a.latent, a.value, a.grad, live.k, ...dead32, auxk, ...sizes, counts, lists.start, lists.scales, lists.entries],
    );
    return lists;
  }

  /** Gradient rows of the dead without the factor of the loss: decoder = zd^T err, encoder = gd^T (x - preBias). */
  #products(m: Machine, path: Path, codes: CudaCodes, B: number, inputs: number, bad: number) {
    const [, d] = this.#shape;
    if (codes.way.kind !== "dense") throw new SaettaError("these codes have no list of the dead", { where: WHERE });
    const { way } = codes;
    const { capacity, dead } = way;
    const err = m.copyOf(checked(path.err, "f32", B, d));
    const decoder = this.#room.get("decoder gradients of the dead", 4 * capacity * d);
    const encoder = this.#room.get("encoder gradients of the dead", 4 * capacity * d);
    const bias = this.#room.get("bias gradients of the dead", 8 * capacity);
    const partial = m.room.get("sums of dead biases", 8 * DENSE_PARTS * capacity);
    eachDenseChunk(m, B, capacity, (first, C) => {
      const shape = { m: capacity, n: d, k: C, aTransposed: true, out: "f32", add: first > 0 } as const;
      const values = denseCodes(m, codes, way, "value", first, C);
      m.cublas.multiply({ ...shape, a: values, b: err + first * d * m.bytes, c: decoder });
      const grads = denseCodes(m, codes, way, "grad", first, C);
      m.cublas.multiply({ ...shape, a: grads, b: inputs + first * d * m.bytes, c: encoder });
      const grid = { blocks: [Math.ceil(capacity / 256), DENSE_PARTS] as const, threads: 256 };
      m.kernels.launch("dense_bias", grid, grads, C, capacity, first === 0 ? 1 : 0, partial);
    });
    const scales = this.#room.get("factors of the loss", 16);
    const grid = { blocks: Math.ceil(capacity / 8), threads: 256 };
    m.kernels.launch("dense_check", grid, encoder, decoder, partial, capacity, d, dead.counts, scales, bias, bad);
    return { capacity, slot: dead.slot, encoder, decoder, bias };
  }
}

/** The structure for rows [from, to) alone. */
function within(structure: readonly number[], from: number, to: number): readonly number[] {
  return [...structure.slice(0, 4), from, to, ...structure.slice(6)];
}

function checkStep(t: Step, n: number, d: number): void {
  at(t.hyper, "f64", HYPER.length);
  at(t.sums, "f64", sumsLength(d));
  at(t.fired, "u32", n);
  at(t.bad, "u32", 1);
  at(t.sq, "f64", 1);
}

/** Gradients that this engine made, not freed. */
export function ownGrads(g: Grads): CudaGrads {
  if (!(g instanceof CudaGrads)) throw new SaettaError("gradients of another engine were given to the cuda engine");
  if (g.freed) throw new SaettaError("gradients were used after they were freed", { where: WHERE });
  return g;
}
