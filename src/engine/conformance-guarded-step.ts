/**
 * One training step's tensors on one engine, for the conformance cases: every operation is run
 * through here, and after each one every tensor that the operation may not write, and the guards
 * allocated between them, must hold the bytes they held before.
 */

import type { Weights } from "../sae/math.ts";
import { CORE_PARAMS, paramEntries, perParam } from "../sae/params.ts";
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
  type Grads,
  HYPER,
  type Hyper,
  type Normalization,
  type Params,
  type Selection,
  type SelectionPlan,
  type State,
  type Step,
  type Tensor,
} from "./engine.ts";
import { sumsLength } from "./sums.ts";

/** What a step starts from. All numbers can be held in f32. */
export interface Setup {
  readonly dims: Dims;
  readonly live: SelectionPlan;
  readonly dead: SelectionPlan | undefined;
  /** Rows of the batch. */
  readonly B: number;
  readonly hyper: Hyper;
  readonly params: Weights;
  readonly m: Weights;
  readonly v: Weights;
  readonly ema: Weights | undefined;
  readonly age: Uint32Array;
  /** raw [m,d] as bytes of its dtype, and the B rows of it that are loaded. */
  readonly raw: { readonly dtype: "f64" | "f32" | "bf16" | "f16"; readonly bytes: Uint8Array };
  readonly rows: Uint32Array;
  readonly normalization?: Normalization | undefined;
  /** Asks for encoder and decoder gradients. */
  readonly dense: boolean;
}

export type BranchName = "live" | "dead";

export class GuardedStep {
  readonly engine: Engine;
  readonly setup: Setup;
  readonly state: State;
  readonly step: Step;
  readonly live: Branch;
  readonly dead: Branch | undefined;
  readonly g: Grads;
  readonly #raw: Tensor;
  readonly #rows: Tensor;
  readonly #x: Tensor;
  readonly #tensors = new Map<string, Tensor>();
  #held = new Map<string, Uint8Array>();

  private constructor(engine: Engine, setup: Setup, dense: boolean) {
    this.engine = engine;
    this.setup = setup;
    const { dims, B, live, dead } = setup;
    const params = (prefix: string): Params =>
      perParam(CORE_PARAMS, (name, { shape }) => this.#alloc(`${prefix}${name}`, engine.real, shape(dims)));
    this.#raw = this.#alloc("raw", setup.raw.dtype, [
      setup.raw.bytes.length / dims.dIn / BYTES_OF_ROW[setup.raw.dtype],
      dims.dIn,
    ]);
    this.#rows = this.#alloc("rows", "u32", [B]);
    this.#x = this.#alloc("x", engine.real, [B, dims.dIn]);
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
      sums: this.#alloc("sums", engine.numbers, [sumsLength(dims.dOut)]),
      fired: this.#alloc("fired", "u32", [dims.n]),
      bad: this.#alloc("bad", "u32", [1]),
      sq: this.#alloc("sq", engine.numbers, [1]),
      cut: this.#alloc("cut of the step", engine.real, [1]),
      active: this.#alloc("active", engine.numbers, [1]),
    };
    this.live = this.#branch("live", live.slots);
    this.dead = dead && this.#branch("dead", dead.slots);
    this.g = engine.grads({ dims, rows: B + 3, selections: dead === undefined ? [live] : [live, dead], dense });
    for (const name of CORE_PARAMS) {
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

  weights(prefix = ""): Weights {
    return perParam(CORE_PARAMS, (name) => this.get(`${prefix}${name}`));
  }

  /** Elements into a tensor, rounded to its dtype. */
  async set(name: string, values: ArrayLike<number>): Promise<void> {
    this.#put(name, values);
    await this.#snapshot();
  }

  load(): Promise<void> {
    return this.#run("load", ["x", "sums", "fired", "bad", "sq"], () =>
      this.engine.load(this.#raw, this.#rows, this.#x, this.step, this.setup.normalization),
    );
  }

  encode(): Promise<void> {
    const { live, dead } = this.setup;
    const selections: readonly Selection[] = [
      { ...live, codes: this.live.codes },
      ...(dead === undefined || this.dead === undefined ? [] : [{ ...dead, codes: this.dead.codes }]),
    ];
    return this.#run("encode", [...CODES("live"), ...CODES("dead"), "fired", "sums", "bad"], () =>
      this.engine.encode(this.state.params, this.#x, this.step, selections, this.state.age),
    );
  }

  decode(name: BranchName): Promise<void> {
    const branch = this.#named(name);
    return this.#run("decode", [`${name}.err`], () => this.engine.decode(this.state.params, branch));
  }

  residual(name: BranchName): Promise<void> {
    const branch = this.#named(name);
    const live = name === "dead" ? this.live : undefined;
    return this.#run("residual", [`${name}.err`, "sums", "bad"], () =>
      this.engine.residual(this.state.params, this.#x, this.step, branch, live),
    );
  }

  codeGrad(name: BranchName): Promise<void> {
    const branch = this.#named(name);
    return this.#run("codeGrad", [`${name}.grad`, "bad"], () =>
      this.engine.codeGrad(this.state.params, branch, this.step),
    );
  }

  paramGrad(): Promise<void> {
    return this.#run("paramGrad", [...GRADS, "bad"], () =>
      this.engine.paramGrad({
        ...{ p: this.state.params, x: this.#x, t: this.step },
        ...{ live: this.live, dead: this.dead, g: this.g, age: this.state.age },
      }),
    );
  }

  norm(): Promise<void> {
    return this.#run("norm", ["sq", "bad"], () => this.engine.norm(this.state.params, this.g, this.step));
  }

  /** A step that is bad may write `counters` and nothing else. */
  update(): Promise<void> {
    const bad = this.get("bad")[0] !== 0;
    const state = ["", "m.", "v.", "ema."].flatMap((prefix) => CORE_PARAMS.map((name) => `${prefix}${name}`));
    return this.#run("update", bad ? ["counters"] : ["counters", "age", ...state], () =>
      this.engine.update(this.state, this.g, this.step),
    );
  }

  /** decode, residual and codeGrad with nothing between them, as a step calls them. */
  reconstruct(name: BranchName): Promise<void> {
    const branch = this.#named(name);
    const live = name === "dead" ? this.live : undefined;
    const params = this.state.params;
    return this.#run("decode, residual and codeGrad", [`${name}.err`, `${name}.grad`, "sums", "bad"], () => {
      this.engine.decode(params, branch);
      this.engine.residual(params, this.#x, this.step, branch, live);
      this.engine.codeGrad(params, branch, this.step);
    });
  }

  /**
   * The whole step; `together`: decode, residual and codeGrad in a row, else with everything looked
   * at after each.
   */
  async whole(together = false): Promise<void> {
    await this.load();
    await this.encode();
    for (const branch of this.branches) {
      if (together) {
        await this.reconstruct(branch);
        continue;
      }
      await this.decode(branch);
      await this.residual(branch);
      await this.codeGrad(branch);
    }
    await this.paramGrad();
    await this.norm();
    await this.update();
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
      if (tensor !== undefined && !/^g\.|^(live|dead)\.(latent|value|grad)$/.test(name)) this.engine.free(tensor);
    }
    for (const branch of [this.live, this.dead]) if (branch !== undefined) this.engine.free(branch.codes);
    this.engine.free(this.g);
  }

  #branch(name: BranchName, slots: number): Branch {
    const { dims, B } = this.setup;
    const codes: Codes = this.engine.codes(B, slots);
    for (const [part, tensor] of Object.entries(this.engine.pairs(codes))) this.#tensors.set(`${name}.${part}`, tensor);
    return { codes, err: this.#alloc(`${name}.err`, this.engine.real, [B, dims.dOut]) };
  }

  #named(name: BranchName): Branch {
    const branch = name === "live" ? this.live : this.dead;
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
const GRADS = CORE_PARAMS.map((name) => `g.${name}`);
const CODES = (branch: BranchName) => [`${branch}.latent`, `${branch}.value`, `${branch}.grad`];

function elements(bytes: Uint8Array, dtype: DType): Float64Array {
  if (dtype === "f64") return float64Of(bytes);
  if (dtype === "f32") return Float64Array.from(float32Of(bytes));
  return Float64Array.from(dtype === "u32" ? uint32Of(bytes) : bytes);
}
