/**
 * The operations of the cpu engine: each checks what it is given and queues a kernel on the stream;
 * what a kernel does is written in kernels/*.cc.
 */

import { totalmem } from "node:os";
import { type Collective, groupOf } from "../../collective/collective.ts";
import { NO_NORMALIZATION } from "../../sae/math.ts";
import { CORE_PARAMS, PARAMS, type ParamName, parameterCount } from "../../sae/params.ts";
import { SaettaError } from "../../util/errors.ts";
import { formatOf, NORMALIZATIONS } from "../contract/names.ts";
import {
  type Branch,
  COUNTERS,
  type Codes,
  type Dims,
  type DType,
  type Engine,
  type Grads,
  type GradsPlan,
  type Narrowing,
  type Over,
  type ParamGradInput,
  type Params,
  type ReduceOp,
  type Rule,
  type Selection,
  type SelectionPlan,
  type State,
  type Step,
  type Tensor,
} from "../engine.ts";
import { EngineBase } from "../engine-base.ts";
import { type GradTensors, NO_PARAMS } from "../held-memory.ts";
import { hostMemory, writeRows } from "../host-rows.ts";
import { refusedPlan, sidesOf, slotsOf } from "../selections.ts";
import { sumsLength } from "../sums.ts";
import { BranchArguments, NO_BRANCH } from "./branch-arguments.ts";
import { RULES } from "./contract.ts";
import {
  at,
  CHECKS,
  CpuCodes,
  CpuGrads,
  CpuTensor,
  checkStep,
  NO_CODES,
  ownCodes,
  ownGrads,
  ownTensor,
  paramAddresses,
  stepAddresses,
  WHERE,
} from "./memory.ts";
import type { Address, Native } from "./native.ts";
import { narrowSum, peersOf, reduction } from "./peers.ts";

/** Rows of a batch are u32 in the lists of the gradients, as latents are in the codes. */
const MAX_COUNT = 2 ** 32 - 2;
const ENTRY_BYTES = 12;
interface Pending {
  readonly ticket: number;
  readonly bytes: Uint8Array;
  readonly resolve: (bytes: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Engines with reads under way. When the process exits their bytes are given back, so the streams
 * must be done writing there.
 */
const reading = new Set<CpuEngine>();
process.once("exit", () => {
  for (const engine of reading) engine.settle();
});

export class CpuEngine extends EngineBase<CpuTensor, CpuCodes, CpuGrads> implements Engine {
  readonly name = "cpu";
  readonly description: string;
  readonly build: string;
  readonly #native: Native;
  readonly #stream: Address;
  #bytesHeld = 0;
  /** Reads under way, in the order of their tickets; only the first is waited for. */
  readonly #pending: Pending[] = [];
  readonly #collective: Collective;
  /** What the stream's thread needs to reach the other ranks; 0 when there are none. */
  readonly #peers: Address;
  #drained: Promise<void> = Promise.resolve();
  readonly #branches: BranchArguments;
  readonly #zerosOf = new Map<number, CpuTensor>();

  constructor(calls: Native, stream: Address, description: string, build: string, collective: Collective) {
    super(CHECKS);
    this.#collective = collective;
    this.#peers = peersOf(calls, collective);
    this.#branches = new BranchArguments(this, collective.grid.shard);
    this.#native = calls;
    this.#stream = stream;
    this.description = description;
    this.build = build;
  }

  refuses(dims: Dims, selections: readonly SelectionPlan[]): string | undefined {
    const refused = refusedPlan(dims, selections, [...RULES, "band"]);
    if (refused !== undefined) return refused;
    if (dims.n > MAX_COUNT) return `at most ${MAX_COUNT} latents can be numbered`;
    const needed = 3 * 4 * parameterCount(dims, CORE_PARAMS);
    return needed > memoryLimit()
      ? `weights and moments take ${needed} bytes, this machine has ${memoryLimit()}`
      : undefined;
  }

  protected allocate(dtype: DType, shape: readonly number[], size: number): CpuTensor {
    const address = this.#reserve(size, `a tensor ${dtype} [${shape}]`, () => this.#native.allocate(size));
    return new CpuTensor(dtype, shape, size, address);
  }

  protected allocateCodes(rows: number, capacity: number): CpuCodes {
    return new CpuCodes(rows, capacity, (dtype, shape) => this.alloc(dtype, shape));
  }

  protected fill(t: CpuTensor, byte: number): void {
    this.write(t, new Uint8Array(t.size).fill(byte));
  }

  grads({ dims, rows, selections, dense, skip = false }: GradsPlan): Grads {
    const { dIn, dOut, n } = dims;
    const hasBand = selections.some(({ rule }) => rule.kind === "band");
    const capacity = rows * slotsOf(selections.filter(({ rule }) => rule.kind !== "band"));
    // Replicas sum whole gradients; a rank without any forms each row as it needs it.
    const isWhole = dense || this.#collective.grid.replicas > 1;
    const make = (name: ParamName) => this.alloc("f32", PARAMS[name].shape(dims));
    const tensors: GradTensors<CpuTensor> = {
      ...{ latentBias: make("latentBias"), preBias: make("preBias") },
      ...(isWhole ? { encoder: make("encoder"), decoder: make("decoder") } : {}),
      ...(hasBand ? { threshold: make("threshold") } : {}),
      ...(skip ? { skip: make("skip") } : {}),
    };
    const addresses = Object.entries(tensors).map(([name, tensor]) => [name, tensor.address]);
    const size = capacity * ENTRY_BYTES + 20 * n + 4 * dIn;
    const handle = this.#reserve(size, `the gradients of ${rows} rows`, () =>
      this.#native.gradients({
        ...{ n, dIn, dOut, capacity },
        g: { ...NO_PARAMS, ...Object.fromEntries(addresses) },
      }),
    );
    return this.hold(new CpuGrads(tensors, size, rows, handle));
  }

  protected queueWrite({ address }: CpuTensor, bytes: Uint8Array, at: number): void {
    this.flush();
    this.#native.write(this.#stream, address + at, bytes, bytes.length);
  }

  hostMemory(bytes: number): Uint8Array<ArrayBuffer> {
    return hostMemory(bytes);
  }

  upload(raw: Tensor, bytes: Uint8Array, row: number): Promise<readonly number[]> {
    return writeRows(this, raw, bytes, row);
  }

  read(t: Tensor): Promise<Uint8Array> {
    this.#open();
    const { address, size } = ownTensor(t);
    // On an ArrayBuffer of its own: its bytes never move, so the stream can write there.
    const bytes = new Uint8Array(new ArrayBuffer(size));
    const ticket = this.#native.read(this.#stream, address, size === 0 ? 0 : this.#native.addressOf(bytes), size);
    return new Promise((resolve, reject) => {
      this.#pending.push({ ticket, bytes, resolve, reject });
      if (this.#pending.length === 1) this.#drained = this.#drain();
    });
  }

  /** Blocks until no bytes are being written for a read. */
  settle(): void {
    const last = this.#pending.at(-1);
    if (last !== undefined) this.#native.block(this.#stream, last.ticket);
  }

  pairs(z: Codes): { readonly latent: Tensor; readonly value: Tensor; readonly grad: Tensor } {
    return ownCodes(z).tensors;
  }

  load(raw: Tensor, rows: Tensor, x: Tensor, t: Step, { kind, factor } = NO_NORMALIZATION, column = 0): void {
    this.#open();
    const [B, d] = x.shape;
    const [m, width] = raw.shape;
    const format = formatOf(raw.dtype);
    if (format === -1) throw new SaettaError(`rows of ${raw.dtype} cannot be loaded`, { where: WHERE });
    if (rows.shape[0] < B) throw new SaettaError(`${rows.shape[0]} row numbers for a batch of ${B}`, { where: WHERE });
    if (column + d > width)
      throw new SaettaError(`columns ${column} to ${column + d} of rows of ${width}`, { where: WHERE });
    this.#native.load(this.#stream, {
      format,
      raw: at(raw, raw.dtype, m, width),
      ...{ m, width, column },
      rows: at(rows, "u32"),
      x: at(x, "f32"),
      ...{ B, d, n: t.fired.shape[0], sums: t.sums.shape[0] },
      t: stepAddresses(t),
      normalization: NORMALIZATIONS.indexOf(kind),
      factor,
    });
  }

  encode(p: Params, x: Tensor, t: Step, selections: readonly Selection[], age?: Tensor): void {
    this.#open();
    const { live, dead, wide, band } = sidesOf(selections, WHERE);
    const { rule } = live;
    const second = dead ?? wide;
    const [n, d] = p.encoder.shape;
    const [B] = x.shape;
    checkStep(t, n);
    const params = paramAddresses(p, n, d, p.preBias.shape[0]);
    const minus = p.untied ? { preBias: this.#zeros(d) } : {};
    const thresholds = rule.kind === "threshold" ? params[rule.param] : 0;
    if ((rule.kind === "threshold" && thresholds === 0) || (band !== undefined && params.threshold === 0))
      throw new SaettaError("a selection by thresholds that are not among the parameters", { where: WHERE });
    this.#native.encode(this.#stream, {
      p: { ...params, ...minus },
      x: at(x, "f32", B, d),
      ...{ B, d, n },
      t: stepAddresses(t),
      live: ownCodes(live.codes).addresses(B),
      dead: second === undefined ? NO_CODES : ownCodes(second).addresses(B),
      wide: wide === undefined ? 0 : 1,
      age: age === undefined ? 0 : at(age, "u32", n),
      rule: RULES.indexOf(rule.kind as (typeof RULES)[number]),
      thresholds,
      thresholdStep: rule.kind === "threshold" && rule.param === "threshold" ? 1 : 0,
      band: band === undefined ? NO_CODES : ownCodes(band).addresses(B),
    });
  }

  reconcile(rule: Rule, z: Codes, t: Step, live: boolean): void {
    const [n] = t.fired.shape;
    if (rule.kind === "batchtopk") {
      this.#open();
      const codes = ownCodes(z).addresses(z.rows);
      this.#native.cut(this.#stream, { peers: this.#peers, z: codes, B: z.rows, n, t: stepAddresses(t) });
      return;
    }
    if (this.#collective.grid.shards === 1 || rule.kind !== "topk") return;
    this.#open();
    this.#native.merge(this.#stream, {
      peers: this.#peers,
      z: ownCodes(z).addresses(z.rows),
      B: z.rows,
      k: rule.k,
      n,
      t: stepAddresses(t),
      isLive: live ? 1 : 0,
    });
  }

  /** Bytes that sums and gathered parts of this process have put on the wire so far. */
  get sentBytes(): number {
    return Number(this.#native.sentBytes());
  }

  allReduce(t: Tensor, op: ReduceOp, over: Over, narrow?: Narrowing): void {
    if (groupOf(this.#collective.grid, over).size === 1) return;
    this.#open();
    if (narrow !== undefined) {
      this.#native.narrowSum(this.#stream, { peers: this.#peers, ...narrowSum(t, over, narrow) });
      return;
    }
    this.#native.allReduce(this.#stream, { peers: this.#peers, ...reduction(t, op, over) });
  }

  decode(p: Params, branch: Branch, x?: Tensor): void {
    this.#open();
    const args = this.#branches.decode(p, branch, x);
    this.fusion.decode(p, branch.codes, branch.err, () => this.#native.decode(this.#stream, args), x);
  }

  residual(p: Params, target: Tensor, t: Step, branch: Branch, live?: Branch): void {
    this.checkOpen();
    const args = this.#branches.residual(p, target, t, branch, live);
    this.fusion.residual(p, target, t, branch, live, () => this.#native.residual(this.#stream, args));
  }

  codeGrad(p: Params, branch: Branch, t: Step): void {
    this.checkOpen();
    const args = { branch: this.#branches.branch(p, branch), t: stepAddresses(t) };
    this.fusion.codeGrad(
      p,
      branch,
      t,
      () => this.#native.codeGrad(this.#stream, args),
      ({ x, target, live }) => {
        this.#native.reconstruct(this.#stream, {
          decode: this.#branches.decode(p, branch, x),
          residual: this.#branches.residual(p, target, t, branch, live),
        });
      },
    );
  }

  paramGrad({ p, x, t, live, dead, wide, band, age, g }: ParamGradInput): void {
    this.#open();
    const second = wide?.branch ?? dead;
    const [n, dIn] = p.encoder.shape;
    const dOut = p.preBias.shape[0]!;
    const [B] = x.shape;
    const grads = ownGrads(g);
    const { rank, replica } = this.#collective.grid;
    grads.checkRows(B, WHERE);
    checkStep(t, n, dOut, live.prefixes?.length);
    at(grads.latentBias, "f32", n);
    at(grads.preBias, "f32", dOut);
    this.#native.paramGrad(this.#stream, {
      p: paramAddresses(p, n, dIn, dOut),
      x: at(x, "f32", B, dIn),
      t: stepAddresses(t),
      live: this.#branches.branch(p, live),
      dead: second === undefined ? NO_BRANCH : this.#branches.branch(p, second),
      wideSums: wide === undefined ? 0 : at(wide.sums, "f64", sumsLength(dOut)),
      band: band === undefined ? NO_CODES : ownCodes(band).addresses(B),
      age: age === undefined ? 0 : at(age, "u32", n),
      g: grads.handle,
      untied: p.untied ? 1 : 0,
      countsErr: rank === 0 ? 1 : 0,
      countsRows: replica === 0 ? 1 : 0,
    });
  }

  norm(p: Params, g: Grads, t: Step): void {
    this.#open();
    const grads = ownGrads(g);
    this.#native.norm(this.#stream, {
      decoder: at(p.decoder, "f32", grads.latentBias.shape[0], grads.preBias.shape[0]),
      g: grads.handle,
      t: stepAddresses(t),
      countsShared: this.#collective.grid.shard === 0 ? 1 : 0,
    });
  }

  update(s: State, g: Grads, t: Step): void {
    this.#open();
    const grads = ownGrads(g);
    const [n, dIn] = s.params.encoder.shape;
    const dOut = s.params.preBias.shape[0]!;
    checkStep(t, n);
    at(grads.latentBias, "f32", n);
    at(grads.preBias, "f32", dOut);
    const addresses = (p: Params) => paramAddresses(p, n, dIn, dOut);
    this.#native.update(this.#stream, {
      p: addresses(s.params),
      m: addresses(s.m),
      v: addresses(s.v),
      ema: s.ema === undefined ? NO_PARAMS : addresses(s.ema),
      age: at(s.age, "u32", n),
      counters: at(s.counters, "f64", COUNTERS.length),
      g: grads.handle,
      t: stepAddresses(t),
      firstLatent: this.#collective.grid.shard * n,
    });
  }

  /** Replicas update all rows. */
  complete(_s: State): void {}

  record(step: () => void): () => void {
    return step;
  }

  protected async shutDown(): Promise<void> {
    this.flush();
    await this.#drained;
    this.freeAll();
    await this.#native.close(this.#stream);
  }

  protected flush(): void {
    this.fusion.flush();
  }

  /** What is subtracted from an input of this width where b_dec is not. */
  #zeros(width: number): Address {
    const held = this.#zerosOf.get(width) ?? this.alloc("f32", [width]);
    this.#zerosOf.set(width, held);
    return held.address;
  }

  /** Before every operation but those that may go together with what is held back. */
  #open(): void {
    this.checkOpen();
    this.flush();
  }

  protected release(it: CpuTensor | CpuGrads): void {
    if (it instanceof CpuTensor) this.#native.release(this.#stream, it.address);
    else this.#native.gradientsRelease(this.#stream, it.address);
    this.#bytesHeld -= it.size;
  }

  /** Memory is promised before it exists, so what this process may hold at all is checked here. */
  #reserve(size: number, what: string, allocate: () => Address): Address {
    this.#open();
    const limit = memoryLimit();
    const fits = Number.isSafeInteger(size) && size >= 0 && this.#bytesHeld + size <= limit;
    const address = fits ? allocate() : 0;
    if (address === 0) {
      throw new SaettaError(
        `no room for ${size} bytes (${what}): ${this.#bytesHeld} bytes are in use, this machine has ${limit}`,
        {
          where: WHERE,
          mend: "use fewer latents or a smaller batch",
        },
      );
    }
    this.#bytesHeld += size;
    return address;
  }

  /**
   * Answers the reads, one wait at a time: each blocks a thread of libuv's pool, which others need
   * too.
   */
  async #drain(): Promise<void> {
    reading.add(this);
    for (let next = this.#pending[0]; next !== undefined; next = this.#pending[0]) {
      try {
        if (this.#native.done(this.#stream) < next.ticket) await this.#native.wait(this.#stream, next.ticket);
        const error = this.#native.error(this.#stream);
        if (error === "") next.resolve(next.bytes);
        else next.reject(new SaettaError(error, { where: WHERE }));
      } catch (error) {
        next.reject(error);
      }
      this.#pending.shift();
    }
    reading.delete(this);
  }
}

/** Bytes of memory that this process can have. */
function memoryLimit(): number {
  const constrained = process.constrainedMemory();
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}
