/**
 * One training step's tensors on one engine, for the conformance cases: every operation is run
 * through here, and after each one every tensor that the operation may not write, and the guards
 * allocated between them, must hold the bytes they held before.
 */

import { PENALTIES, type Prefix, type Sparsity, type Weights } from "../sae/math.ts";
import { CORE_PARAMS, PARAMS, type ParamName, paramEntries, perParam } from "../sae/params.ts";
import { bytesOf, float32Of, float64Of, uint32Of } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { hyperValues } from "./contract/names.ts";
import {
  type Branch,
  COUNTERS,
  type Codes,
  type Dims,
  type DType,
  type Engine,
  FULL,
  type Grads,
  HYPER,
  HYPER_DEFAULTS,
  type Hyper,
  type Normalization,
  type Params,
  type Selection,
  type SelectionPlan,
  type State,
  type Step,
  SUMS,
  type Tensor,
} from "./engine.ts";
import { sumsLength } from "./sums.ts";

/** What a step starts from. All numbers can be held in f32. */
export interface GivenCodes {
  /** [B,slots] each. */
  readonly latent: Float64Array;
  readonly value: Float64Array;
}

/** What a step finds that begins where the codes are selected. */
export interface Given {
  /** [B,dIn]. */
  readonly x: Float64Array;
  /** [B,dOut]; default: x. */
  readonly target: Float64Array | undefined;
  readonly live: GivenCodes;
  readonly dead: GivenCodes | undefined;
  readonly band: GivenCodes | undefined;
  readonly fired: Float64Array;
  readonly cut: number;
  readonly active: number;
  /** How many latents are dead. */
  readonly deadLatents: number;
}

export interface Setup {
  readonly dims: Dims;
  readonly live: SelectionPlan;
  readonly dead: SelectionPlan | undefined;
  /** A selection by "band". */
  readonly band?: SelectionPlan | undefined;
  /** Rows of the batch. */
  readonly B: number;
  readonly hyper: Hyper;
  /** The state has the parameters that are here. */
  readonly params: Weights;
  readonly m: Weights;
  readonly v: Weights;
  readonly ema: Weights | undefined;
  readonly age: Uint32Array;
  /**
   * raw [m,width] as bytes of its dtype, and the B rows of it that are loaded, from column `column`
   * on. Defaults: width d, column 0.
   */
  readonly raw: {
    readonly dtype: "f64" | "f32" | "bf16" | "f16";
    readonly bytes: Uint8Array;
    readonly width?: number;
    readonly column?: number;
  };
  readonly rows: Uint32Array;
  readonly normalization?: Normalization | undefined;
  /** Of the live branch. */
  readonly prefixes?: readonly Prefix[] | undefined;
  /** Replaces load, encode and reconcile. */
  readonly given?: Given | undefined;
  /** Asks for encoder and decoder gradients. */
  readonly dense: boolean;
}

export type BranchName = "live" | "dead";
export type CodesName = BranchName | "band";

export class GuardedStep {
  readonly engine: Engine;
  readonly setup: Setup;
  readonly state: State;
  readonly step: Step;
  readonly live: Branch;
  readonly dead: Branch | undefined;
  /** The codes in the band with the live err. */
  readonly band: Branch | undefined;
  readonly g: Grads;
  readonly #raw: Tensor;
  readonly #rows: Tensor;
  readonly #x: Tensor;
  readonly #target: Tensor;
  readonly #tensors = new Map<string, Tensor>();
  #held = new Map<string, Uint8Array>();

  private constructor(engine: Engine, setup: Setup, dense: boolean) {
    this.engine = engine;
    this.setup = setup;
    const { dims, B, live, dead, band, prefixes, given } = setup;
    const params = (prefix: string): Params => ({
      ...perParam(this.paramNames, (name, { shape }) => this.#alloc(`${prefix}${name}`, engine.real, shape(dims))),
      untied: dims.untied,
    });
    const { dtype, bytes, width = dims.dIn } = setup.raw;
    this.#raw = this.#alloc("raw", dtype, [bytes.length / width / BYTES_OF_ROW[dtype], width]);
    this.#rows = this.#alloc("rows", "u32", [B]);
    this.#x = this.#alloc("x", engine.real, [B, dims.dIn]);
    this.#target = given?.target ? this.#alloc("target", engine.real, [B, dims.dOut]) : this.#x;
    this.state = {
      params: params(""),
      m: params("m."),
      v: params("v."),
      ...(setup.ema === undefined ? {} : { ema: params("ema.") }),
      age: this.#alloc("age", "u32", [dims.n]),
      counters: this.#alloc("counters", engine.numbers, [COUNTERS.length]),
    };
    this.step = {
      hyper: this.#alloc("hyper", engine.numbers, [HYPER.length]),
      sums: this.#alloc("sums", engine.numbers, [sumsLength(dims.dOut, prefixes?.length)]),
      fired: this.#alloc("fired", "u32", [dims.n]),
      bad: this.#alloc("bad", "u32", [1]),
      sq: this.#alloc("sq", engine.numbers, [1]),
      cut: this.#alloc("cut of the step", engine.real, [1]),
      active: this.#alloc("active", engine.numbers, [1]),
    };
    this.live = { ...this.#branch("live", live.slots, prefixes?.length), prefixes };
    this.dead = dead && this.#branch("dead", dead.slots);
    this.band = band && { ...this.live, codes: this.#codes("band", band.slots) };
    const selections = [live, dead, band].filter((plan) => plan !== undefined);
    this.g = engine.grads({ dims, rows: B + 3, selections, dense, skip: "skip" in setup.params });
    for (const name of GRAD_NAMES) {
      const tensor = this.g[name];
      if (tensor !== undefined) this.#tensors.set(`g.${name}`, tensor);
    }
  }

  static async create(engine: Engine, setup: Setup, dense = setup.dense): Promise<GuardedStep> {
    const guarded = new GuardedStep(engine, setup, dense);
    guarded.#write("raw", setup.raw.bytes);
    guarded.#put("rows", setup.rows);
    guarded.#put("age", setup.age);
    guarded.#put("hyper", hyperValues(setup.hyper));
    for (const [prefix, weights] of Object.entries({
      "": setup.params,
      "m.": setup.m,
      "v.": setup.v,
      "ema.": setup.ema,
    })) {
      if (weights) for (const [name, , values] of paramEntries(weights)) guarded.#put(`${prefix}${name}`, values);
    }
    for (const name of guarded.#tensors.keys()) if (name.startsWith("guard")) guarded.#write(name, GUARD);
    await guarded.#snapshot();
    return guarded;
  }

  get names(): readonly string[] {
    return [...this.#tensors.keys()];
  }

  /** The tensor's elements as of the last operation. */
  get(name: string): Float64Array {
    const bytes = this.#held.get(name);
    const tensor = this.#tensors.get(name);
    if (bytes === undefined || tensor === undefined) throw new Error(`no tensor ${name}`);
    return elements(bytes, tensor.dtype);
  }

  /** What is reconstructed. */
  target(): Float64Array {
    return this.get(this.#target === this.#x ? "x" : "target");
  }

  /** The residual of the whole autoencoder. */
  lastPlane(): Float64Array {
    const err = this.get("live.err");
    return err.subarray(err.length - this.setup.B * this.setup.dims.dOut);
  }

  /** The sparsity loss; undefined where there is none. */
  sparsity(): Sparsity | undefined {
    const { hyper } = this.setup;
    const { penalty, sparsity, tanhScale, targetL0, deadPenalty, bandwidth, rows } = { ...HYPER_DEFAULTS, ...hyper };
    if (!this.paramNames.includes("sparsity")) return undefined;
    return {
      kind: PENALTIES[penalty]!,
      coefficient: sparsity * this.get("sparsity")[0]!,
      scale: tanhScale,
      target: targetL0,
      ...{ deadPenalty, bandwidth, rows, l0: this.get("active")[0]! / rows },
    };
  }

  /** Parameters that have a gradient. */
  get gradientNames(): readonly ParamName[] {
    return this.paramNames.filter((name) => PARAMS[name].update.startsWith("adam"));
  }

  get paramNames(): readonly ParamName[] {
    return paramEntries(this.setup.params).map(([name]) => name);
  }

  /** Those that are there: not all parameters have a gradient. */
  weights(prefix = ""): Weights {
    const names = this.paramNames.filter((name) => this.#tensors.has(`${prefix}${name}`));
    return perParam(names, (name) => this.get(`${prefix}${name}`));
  }

  /** A row needs more slots than there are. */
  get isFull(): boolean {
    return (this.get("bad")[0] & FULL) !== 0;
  }

  /** Elements into a tensor, rounded to its dtype. */
  async set(name: string, values: ArrayLike<number>): Promise<void> {
    this.#put(name, values);
    await this.#snapshot();
  }

  /** Of columns past the first, the target of a transcoder, only x and bad are written. */
  load(): Promise<void> {
    const { normalization, raw } = this.setup;
    const found = raw.column ? [] : ["sums", "fired", "sq", "cut of the step", "active"];
    return this.#run("load", this.isFull ? [] : ["x", "bad", ...found], () =>
      this.engine.load(this.#raw, this.#rows, this.#x, this.step, normalization, raw.column),
    );
  }

  encode(): Promise<void> {
    const selections: readonly Selection[] = this.selections.map(([, { rule, among }, codes]) => ({
      ...{ rule, among, codes },
    }));
    const codes = this.selections.flatMap(([name]) => CODES(name));
    return this.#run("encode", [...codes, "fired", "sums", "bad", "active"], () =>
      this.engine.encode(this.state.params, this.#x, this.step, selections, this.state.age),
    );
  }

  reconcile(name: CodesName): Promise<void> {
    const [, { rule }, codes] = this.selections.find(([each]) => each === name)!;
    const writes = rule.kind === "batchtopk" ? [...CODES(name), "fired", "bad", "cut of the step"] : [];
    return this.#run("reconcile", writes, () => this.engine.reconcile(rule, codes, this.step, name === "live"));
  }

  /** In place of load and select: what the setup gives. */
  async give({ x, target, fired, cut, active, deadLatents, ...codes }: Given): Promise<void> {
    this.#put("x", x);
    if (target !== undefined) this.#put("target", target);
    for (const name of ["live", "dead", "band"] as const) {
      const given = codes[name];
      if (given === undefined) continue;
      this.#put(`${name}.latent`, given.latent);
      this.#put(`${name}.value`, given.value);
      this.#put(`${name}.grad`, new Float64Array(given.value.length));
    }
    const sums = new Float64Array(this.get("sums").length);
    sums[SUMS.indexOf("dead")] = deadLatents;
    const numbers = { sums, fired, "cut of the step": [cut], active: [active], bad: [0], sq: [0] };
    for (const [name, values] of Object.entries(numbers)) this.#put(name, values);
    await this.#snapshot();
  }

  /** With x for the skip connection, which the live branch has. */
  decode(name: BranchName): Promise<void> {
    const branch = this.#named(name);
    const x = name === "live" ? this.#x : undefined;
    return this.#run("decode", [`${name}.err`], () => this.engine.decode(this.state.params, branch, x));
  }

  residual(name: BranchName): Promise<void> {
    const branch = this.#named(name);
    const live = name === "dead" ? this.live : undefined;
    return this.#run("residual", [`${name}.err`, "sums", "bad"], () =>
      this.engine.residual(this.state.params, this.#target, this.step, branch, live),
    );
  }

  codeGrad(name: CodesName): Promise<void> {
    const branch = this.#named(name);
    return this.#run("codeGrad", [`${name}.grad`, "bad"], () =>
      this.engine.codeGrad(this.state.params, branch, this.step),
    );
  }

  paramGrad(): Promise<void> {
    return this.#run("paramGrad", [...GRADS, "bad"], () =>
      this.engine.paramGrad({
        ...{ p: this.state.params, x: this.#x, t: this.step },
        ...{ live: this.live, dead: this.dead, band: this.band?.codes, g: this.g, age: this.state.age },
      }),
    );
  }

  norm(): Promise<void> {
    return this.#run("norm", ["sq", "bad"], () => this.engine.norm(this.state.params, this.g, this.step));
  }

  /**
   * A step that is bad may write `counters` and nothing else; one that needs more slots, nothing.
   */
  update(): Promise<void> {
    const bad = this.get("bad")[0] !== 0;
    const state = ["", "m.", "v.", "ema."].flatMap((prefix) => this.paramNames.map((name) => `${prefix}${name}`));
    return this.#run("update", this.isFull ? [] : bad ? ["counters"] : ["counters", "age", ...state], () =>
      this.engine.update(this.state, this.g, this.step),
    );
  }

  /** decode, residual and codeGrad with nothing between them, as a step calls them. */
  reconstruct(name: BranchName): Promise<void> {
    const branch = this.#named(name);
    const live = name === "dead" ? this.live : undefined;
    const params = this.state.params;
    return this.#run("decode, residual and codeGrad", [`${name}.err`, `${name}.grad`, "sums", "bad"], () => {
      this.engine.decode(params, branch, name === "live" ? this.#x : undefined);
      this.engine.residual(params, this.#target, this.step, branch, live);
      this.engine.codeGrad(params, branch, this.step);
    });
  }

  /**
   * The whole step; `together`: decode, residual and codeGrad in a row, else with everything looked
   * at after each.
   */
  async whole(together = false): Promise<void> {
    if (this.setup.given === undefined) {
      await this.load();
      await this.select();
    } else {
      await this.give(this.setup.given);
    }
    await this.afterSelection(together);
  }

  /** The operations from the codes on. */
  async afterSelection(together = false): Promise<void> {
    for (const branch of this.branches) {
      if (together) {
        await this.reconstruct(branch);
        continue;
      }
      await this.decode(branch);
      await this.residual(branch);
      await this.codeGrad(branch);
    }
    if (this.band !== undefined) await this.codeGrad("band");
    await this.paramGrad();
    await this.norm();
    await this.update();
  }

  /** Everything from encode until the codes are those of the step. */
  async select(): Promise<void> {
    await this.encode();
    for (const [name, { rule }] of this.selections) if (rule.kind !== "topk") await this.reconcile(name);
  }

  get selections(): readonly (readonly [name: CodesName, plan: SelectionPlan, codes: Codes])[] {
    const { setup, live, dead, band } = this;
    return [
      ["live", setup.live, live.codes] as const,
      ...(dead && setup.dead ? [["dead", setup.dead, dead.codes] as const] : []),
      ...(band && setup.band ? [["band", setup.band, band.codes] as const] : []),
    ];
  }

  get branches(): readonly BranchName[] {
    return this.dead === undefined ? ["live"] : ["live", "dead"];
  }

  /** Takes over the other step's numbers, so that the next operation starts from the same ones. */
  async takeFrom(other: GuardedStep, names: readonly string[]): Promise<void> {
    for (const name of names) if (this.#tensors.has(name) && other.#tensors.has(name)) this.#put(name, other.get(name));
    await this.#snapshot();
  }

  free(): void {
    for (const name of this.#tensors.keys()) {
      const tensor = this.#tensors.get(name);
      if (tensor !== undefined && !/^g\.|^(live|dead|band)\.(latent|value|grad)$/.test(name)) this.engine.free(tensor);
    }
    for (const [, , codes] of this.selections) this.engine.free(codes);
    this.engine.free(this.g);
  }

  #branch(name: BranchName, slots: number, planes = 1): Branch {
    const { dims, B } = this.setup;
    const shape = planes > 1 ? [planes, B, dims.dOut] : [B, dims.dOut];
    return { codes: this.#codes(name, slots), err: this.#alloc(`${name}.err`, this.engine.real, shape) };
  }

  #codes(name: CodesName, slots: number): Codes {
    const codes: Codes = this.engine.codes(this.setup.B, slots);
    for (const [part, tensor] of Object.entries(this.engine.pairs(codes))) this.#tensors.set(`${name}.${part}`, tensor);
    return codes;
  }

  #named(name: CodesName): Branch {
    const branch = this[name];
    if (branch === undefined) throw new Error(`no ${name} branch`);
    return branch;
  }

  #alloc(name: string, dtype: DType, shape: readonly number[]): Tensor {
    const tensor = this.engine.alloc(dtype, shape);
    this.#tensors.set(name, tensor);
    this.#tensors.set(`guard after ${name}`, this.engine.alloc("u8", [GUARD.length]));
    return tensor;
  }

  #put(name: string, values: ArrayLike<number>): void {
    const dtype = this.#tensors.get(name)?.dtype;
    const typed =
      dtype === "u32"
        ? Uint32Array.from(values)
        : dtype === "f32"
          ? Float32Array.from(values)
          : Float64Array.from(values);
    this.#write(name, bytesOf(typed));
  }

  #write(name: string, bytes: Uint8Array): void {
    const tensor = this.#tensors.get(name);
    if (tensor !== undefined) this.engine.write(tensor, bytes);
  }

  async #run(what: string, writes: readonly string[], operation: () => void): Promise<void> {
    const before = this.#held;
    operation();
    await this.#snapshot();
    for (const [name, bytes] of this.#held) {
      if (!writes.includes(name) && Buffer.compare(bytes, before.get(name) ?? bytes) !== 0) {
        throw new SaettaError(`${what} wrote to ${name}, which is not its to write`);
      }
    }
  }

  async #snapshot(): Promise<void> {
    const reads = [...this.#tensors].map(async ([name, tensor]) => [name, await this.engine.read(tensor)] as const);
    this.#held = new Map(await Promise.all(reads));
  }
}

const BYTES_OF_ROW = { f64: 8, f32: 4, bf16: 2, f16: 2 } as const;
const GUARD = new Uint8Array(52).fill(0xa5);
const GRAD_NAMES = [...CORE_PARAMS, "threshold", "skip"] as const;
const GRADS = GRAD_NAMES.map((name) => `g.${name}`);
const CODES = (name: CodesName) => [`${name}.latent`, `${name}.value`, `${name}.grad`];

function elements(bytes: Uint8Array, dtype: DType): Float64Array {
  if (dtype === "f64") return float64Of(bytes);
  if (dtype === "f32") return Float64Array.from(float32Of(bytes));
  return Float64Array.from(dtype === "u32" ? uint32Of(bytes) : bytes);
}
