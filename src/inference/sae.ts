/** A trained autoencoder, ready to encode and decode rows on any engine. */

import type { NonFinite } from "../data/batches.ts";
import type { ChunkMemory, ChunkOptions } from "../data/chunks.ts";
import type { RowDType } from "../data/source.ts";
import { allocParams, freeParams } from "../engine/allocate.ts";
import {
  type Engine,
  HYPER,
  HYPER_DEFAULTS,
  type Hyper,
  type Normalization,
  type Params,
  type SelectionPlan,
  type Tensor,
} from "../engine/engine.ts";
import { ForwardPass } from "../engine/forward.ts";
import { readNumbers } from "../engine/numbers.ts";
import { type Dtype, selectEngine } from "../engine/select.ts";
import { sumsLength } from "../engine/sums.ts";
import { isSet, refuseUnset } from "../interchange/selection.ts";
import { rulesOf } from "../sae/architectures/index.ts";
import { normalizationOf, paramNames, type SaeDescription } from "../sae/description.ts";
import type { Dims } from "../sae/dims.ts";
import { NO_NORMALIZATION, type Prefix } from "../sae/math.ts";
import type { ParamName } from "../sae/params.ts";
import { mayOverflow, slotsFor } from "../sae/rule.ts";
import { BYTES, bytesOf, float32Of, float64Of, uint32Of } from "../util/bytes.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { rowMemory } from "./row-memory.ts";
import { statisticsIn, statisticsOf } from "./row-statistics.ts";
import { type CodesOfRows, type RowStatistics, type SparseCodes, together } from "./sparse-codes.ts";
import { checkWeights, type FoundSae, findSae, type SaeOrigin, type WeightsKind, writeParams } from "./weights.ts";

export type { RowStatistics, SparseCodes } from "./sparse-codes.ts";

export interface LoadOptions {
  /** Stays the caller's. Default: the fastest that runs here, closed with the autoencoder. */
  readonly engine?: Engine;
  /** What the default engine computes products in. Default: f32, or what gives the same codes. */
  readonly dtype?: Dtype;
  /** Default: the running average where training kept one. */
  readonly weights?: WeightsKind;
  /** Active latents a row, for a file of another program that does not say it. */
  readonly k?: number;
  /**
   * true: "layer_norm" is undone with the standard deviation alone, as other programs do. Only to
   * compare with what they compute.
   */
  readonly undoneWithStd?: boolean;
  /**
   * false: the average's decoder rows are left as short as averaging makes them. Only to measure
   * what that changes.
   */
  readonly unitDecoder?: boolean;
}

/** The numbers of a step that inference does not need. */
const NO_TRAINING: Hyper = {
  ...(Object.fromEntries(HYPER.map((name) => [name, 0])) as Required<Hyper>),
  ...HYPER_DEFAULTS,
};

/** Rows that go through the engine at once. */
const CAPACITY = 4096;
/** Rows of a call, and slots of the codes of a call whose rows use all latents. */
const [CALL_ROWS, CALL_SLOTS] = [4096, 2 ** 25];

/**
 * Loads an autoencoder from a run folder, a checkpoint folder, or a folder or file of sparsify,
 * SAELens, OpenAI or dictionary_learning. It takes and gives rows as they are in the activations:
 * what training did to them ("unit", "layer_norm") it does first and undoes last; "scale" is in the
 * weights.
 */
export async function loadSae(path: string, options: LoadOptions = {}): Promise<Sae & { readonly path: string }> {
  return loadFound(await findSae(path, options.weights, { k: options.k }), path, options);
}

/** Loads what was found already; `where` names it in errors. */
export async function loadFound(
  sae: FoundSae,
  where: string,
  options: Omit<LoadOptions, "weights" | "k"> = {},
): Promise<Sae & { readonly path: string }> {
  const found = asUndone(sae, options.undoneWithStd);
  const engine = options.engine ?? (await selectEngine("auto", { dtype: options.dtype, inference: true }));
  const close = async () => {
    if (options.engine === undefined) await engine[Symbol.asyncDispose]();
  };
  try {
    const { dims } = found.description;
    const refusal = engine.refuses(dims, [inferencePlan(found.description)]);
    if (refusal !== undefined) throw new SaettaError(refusal, { where });
    await checkWeights(found);
    const params = allocParams(engine, dims, paramNames(found.description));
    await writeParams(engine, found, params, options.unitDecoder);
    await checkCut(engine, params, where);
    return (await saeOver(found, engine, params, close)) as Sae & { readonly path: string };
  } catch (thrown) {
    await close();
    throw thrown;
  }
}

/** Throws SaettaError where the threshold of BatchTopK was never set. */
async function checkCut(engine: Engine, { cut }: Params, where: string): Promise<void> {
  if (cut === undefined) return;
  const bytes = await engine.read(cut);
  if (!isSet(engine.real === "f64" ? float64Of(bytes) : float32Of(bytes))) refuseUnset(where);
}

/** The selection of inference. */
function inferencePlan({ dims, spec }: SaeDescription): SelectionPlan {
  const { inference } = rulesOf(spec);
  return { rule: inference, among: "all", slots: slotsFor(inference, dims.n) };
}

function asUndone(found: FoundSae, withStd = false): FoundSae {
  const { saetta } = found.description;
  if (!withStd || saetta?.normalization !== "layer_norm") return found;
  return { ...found, description: { ...found.description, saetta: { ...saetta, undoneWith: "std" } } };
}

/**
 * An autoencoder over parameters that are in the engine already, which it owns; `close` is called
 * when it is closed.
 */
export async function saeOver(
  found: SaeOrigin,
  engine: Engine,
  params: Params,
  close: () => Promise<void>,
): Promise<Sae> {
  const bytes = await engine.read(params.preBias);
  const preBias = engine.real === "f64" ? float64Of(bytes) : Float64Array.from(float32Of(bytes));
  return new Sae(found, engine, params, preBias, close);
}

interface Forward {
  readonly raw: Uint8Array;
  readonly dtype: RowDType;
  readonly count: number;
  /** The space of the reconstruction; default: there is none. */
  readonly decode?: "rows" | "normalized" | undefined;
  /** Sums of the reconstruction are added to it. */
  readonly sums?: Float64Array | undefined;
  /** The error of a row that is not finite. */
  readonly refuse: (row: number) => SaettaError;
}

const refuseRow = (row: number): SaettaError => new SaettaError(`row ${row} of those to encode is not finite`);

export class Sae implements AsyncDisposable {
  /** The folder that the weights came from; undefined where they were never saved. */
  readonly path: string | undefined;
  readonly description: SaeDescription;
  readonly dims: Dims;
  /**
   * Slots per row of the codes that `encode` returns; where a threshold decides, those that it
   * starts with.
   */
  readonly k: number;
  /** Which weights these are: the running average ("ema") or those of the last step ("raw"). */
  readonly weights: WeightsKind;
  readonly found: SaeOrigin;
  readonly engine: Engine;
  /** What is done to rows before they are encoded. */
  readonly #normalization: Normalization;
  readonly #params: Params;
  readonly #preBias: Float64Array;
  readonly #close: () => Promise<void>;
  readonly #plan: SelectionPlan;
  /** By number of rows, dtype of the rows, and slots. */
  readonly #passes = new Map<string, ForwardPass>();
  readonly #rowMemory: (bytes: number) => ChunkMemory;
  #turn: Promise<unknown> = Promise.resolve();
  #life: "open" | "closed" = "open";

  constructor(found: SaeOrigin, engine: Engine, params: Params, preBias: Float64Array, close: () => Promise<void>) {
    this.path = found.path;
    this.description = found.description;
    this.dims = found.description.dims;
    this.#plan = inferencePlan(found.description);
    this.k = this.#plan.slots;
    this.weights = found.weights;
    this.found = found;
    this.engine = engine;
    this.#rowMemory = rowMemory(engine);
    const trained = normalizationOf(found.description);
    this.#normalization = trained.kind === "scale" ? NO_NORMALIZATION : trained;
    this.#params = params;
    this.#preBias = preBias;
    this.#close = close;
  }

  /**
   * Rows of a call of `encodeRaw` or `reconstructRaw` that take a bounded amount of memory, however
   * many latents are active: 128 MiB of latents, and as much of values.
   */
  get rowsAtOnce(): number {
    if (!mayOverflow(this.#plan.rule)) return CALL_ROWS;
    return Math.min(CALL_ROWS, Math.max(64, 2 ** Math.floor(Math.log2(CALL_SLOTS / this.dims.n))));
  }

  /** How rows are best read that are given to `encodeRaw` and its like. */
  chunks(nonFinite: NonFinite | undefined): ChunkOptions {
    const isLookedAt = this.dims.untied !== true;
    return { nonFinite, isLookedAt, chunkRows: this.rowsAtOnce, memory: this.#rowMemory };
  }

  /** rows [B*d] -> their codes. Throws SaettaError when a row is not finite. */
  encode(rows: Float32Array): Promise<SparseCodes> {
    return this.encodeRaw(bytesOf(rows), "f32", this.#rowsIn(rows.length));
  }

  /**
   * The same for `count` rows as little-endian bytes, in any dtype of activations, without a detour
   * through JavaScript numbers.
   */
  encodeRaw(raw: Uint8Array, dtype: RowDType, count: number, refuse = refuseRow): Promise<SparseCodes> {
    return this.#inTurn(async () => (await this.#forward({ raw, dtype, count, refuse })).codes);
  }

  /**
   * The codes of the rows and their reconstruction [B*d], pre-bias added, in the space of the rows;
   * or of normalised rows, where each is normalised by itself.
   */
  reconstructRaw(
    raw: Uint8Array,
    dtype: RowDType,
    count: number,
    decode: "rows" | "normalized" = "rows",
    refuse = refuseRow,
  ): Promise<{ readonly codes: SparseCodes; readonly output: Float32Array }> {
    return this.#inTurn(() => this.#forward({ raw, dtype, count, decode, refuse }));
  }

  /**
   * The codes of the rows, and sums of their reconstruction and of those by prefixes (namedSums of
   * engine/sums.ts), which the engine takes where the rows are: of an autoencoder, in the space of
   * normalised rows.
   */
  measureRaw(
    raw: Uint8Array,
    dtype: RowDType,
    count: number,
    refuse = refuseRow,
  ): Promise<{ readonly codes: SparseCodes; readonly sums: Float64Array }> {
    return this.#inTurn(async () => {
      const sums = new Float64Array(sumsLength(this.dims.dOut, this.prefixes?.length));
      const { codes } = await this.#forward({ raw, dtype, count, sums, refuse });
      return { codes, sums };
    });
  }

  /** Of a Matryoshka autoencoder. */
  get prefixes(): readonly Prefix[] | undefined {
    return rulesOf(this.description.spec).prefixes;
  }

  /**
   * codes of B rows -> their reconstruction [B*d]: the sum of value times decoder row, plus the
   * pre-bias; where each row is normalised by itself, times its size and plus its mean, which are
   * in the codes that `encode` returned. Throws UsageError for codes without them. A transcoder
   * with a skip connection also needs its inputs [B*dIn].
   */
  decode(codes: SparseCodes, inputs?: Float32Array): Promise<Float32Array> {
    const { k, latent, value } = codes;
    const { dOut: d, n } = this.dims;
    const rows = latent.length / k;
    if (!Number.isInteger(rows) || value.length !== latent.length) {
      throw new UsageError(`codes of ${latent.length} latents and ${value.length} values make no whole rows of ${k}`);
    }
    for (const [slot, j] of latent.entries()) {
      if (value[slot] !== 0 && j >= n) throw new UsageError(`latent ${j} is in the codes, but there are only ${n}`);
    }
    const statistics = statisticsIn(codes, rows, this.#normalization);
    const { dIn } = this.dims;
    if (this.#params.skip !== undefined && inputs?.length !== rows * dIn)
      throw new UsageError(`decode of a transcoder with a skip connection needs its ${rows} inputs of ${dIn} numbers`);
    return this.#inTurn(async () => {
      const output = new Float32Array(rows * d);
      for (let first = 0; first < rows; first += CAPACITY) {
        const count = Math.min(CAPACITY, rows - first);
        const pass = this.#pass(count, "f32", k);
        const pairs = this.engine.pairs(pass.live.codes);
        const part = value.subarray(first * k, (first + count) * k);
        this.engine.write(pairs.latent, bytesOf(latent.subarray(first * k, (first + count) * k)));
        this.engine.write(pairs.value, bytesOf(this.engine.real === "f32" ? part : Float64Array.from(part)));
        if (inputs !== undefined) {
          this.engine.write(pass.raw!, bytesOf(inputs.subarray(first * dIn, (first + count) * dIn)));
          pass.prepare(NO_TRAINING);
          pass.load(pass.raw!);
        }
        pass.decode(this.#params);
        this.#finish(await this.#reals(pass.live.err), output, first, count, statistics);
      }
      return output;
    });
  }

  /** Whether a linear map from input to output is next to the latents. */
  get hasSkip(): boolean {
    return this.#params.skip !== undefined;
  }

  /** The values of one parameter, row-major, as f32. */
  parameter(name: ParamName): Promise<Float32Array> {
    return this.#inTurn(async () => {
      const tensor = this.#params[name];
      if (tensor === undefined) throw new UsageError(`this autoencoder has no parameter ${name}`);
      const values = await this.#reals(tensor);
      return values instanceof Float32Array ? values : Float32Array.from(values);
    });
  }

  async close(): Promise<void> {
    if (this.#life === "closed") return;
    this.#life = "closed";
    await this.#turn;
    for (const pass of this.#passes.values()) pass.close();
    freeParams(this.engine, this.#params);
    await this.#close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #forward({
    raw,
    dtype,
    count,
    decode,
    sums,
    refuse,
  }: Forward): Promise<{ codes: SparseCodes; output: Float32Array }> {
    const { dIn: d, dOut } = this.dims;
    const rowBytes = d * BYTES[dtype];
    if (raw.byteLength !== count * rowBytes) {
      throw new UsageError(`${raw.byteLength} bytes are not ${count} rows of ${d} ${dtype}, the autoencoder's inputs`);
    }
    const parts: CodesOfRows[] = [];
    const output = new Float32Array(decode ? count * dOut : 0);
    const statistics = this.#statisticsOf(raw, dtype, count);
    const most = Math.min(CAPACITY, this.rowsAtOnce);
    for (let first = 0; first < count; first += most) {
      const rows = Math.min(most, count - first);
      const pass = sums === undefined ? this.#pass(rows, dtype, this.k) : this.#measuring(rows, dtype);
      const { engine } = this;
      const [bad] = await engine.upload(pass.raw!, raw.subarray(first * rowBytes, (first + rows) * rowBytes), 0);
      if (bad !== undefined) throw refuse(first + bad);
      // A pass is used whole: what it holds past the last row repeats that row, and is not looked
      // at.
      const index =
        pass.rows === rows ? undefined : Uint32Array.from({ length: pass.rows }, (_, row) => Math.min(row, rows - 1));
      pass.prepare({ ...NO_TRAINING, rows }, index);
      const measure = () => {
        pass.decode(this.#params);
        pass.residual(this.#params);
      };
      await pass.encodeFitting(this.#params, pass.raw!, sums && measure);
      if (sums !== undefined)
        for (const [i, sum] of (await readNumbers(engine, pass.step.sums)).entries()) sums[i]! += sum;
      const { codes, err: out } = pass.live;
      if (decode) pass.decode(this.#params);
      const pairs = engine.pairs(codes);
      const k = codes.capacity;
      const latent = uint32Of(await engine.read(pairs.latent)).subarray(0, rows * k);
      parts.push({ k, latent, value: (await this.#reals(pairs.value)).subarray(0, rows * k) });
      if (decode) this.#finish(await this.#reals(out), output, first, rows, decode === "rows" ? statistics : undefined);
      if (uint32Of(await engine.read(pass.step.bad))[0] !== 0)
        throw new SaettaError("a row that was to be encoded is too large for its pre-activations");
    }
    const codes = together(parts, count, mayOverflow(this.#plan.rule) ? undefined : this.k);
    return { codes: { ...codes, ...(statistics && { rows: statistics }) }, output };
  }

  /**
   * Sums of `count` rows -> rows of `into` from `first` on: the pre-bias added, the normalisation
   * undone.
   */
  #finish(
    sums: Float32Array | Float64Array,
    into: Float32Array,
    first: number,
    count: number,
    statistics: RowStatistics | undefined,
  ): void {
    const d = this.dims.dOut;
    for (let row = 0; row < count; row++) {
      const size = statistics?.size[first + row] ?? 1;
      const mean = statistics?.mean[first + row] ?? 0;
      for (let i = 0; i < d; i++) into[(first + row) * d + i] = (sums[row * d + i] + this.#preBias[i]) * size + mean;
    }
  }

  /** What the way back from normalised rows needs; undefined where nothing is done to rows. */
  #statisticsOf(raw: Uint8Array, dtype: RowDType, count: number): RowStatistics | undefined {
    const withoutEps = this.description.saetta?.undoneWith === "std";
    return statisticsOf({ raw, dtype, count, d: this.dims.dIn, normalization: this.#normalization, withoutEps });
  }

  async #reals(t: Tensor): Promise<Float32Array | Float64Array> {
    const bytes = await this.engine.read(t);
    return t.dtype === "f64" ? float64Of(bytes) : float32Of(bytes);
  }

  /** A pass over a number of rows, rounded up to a power of two so that few sizes are ever made. */
  #pass(rows: number, dtype: RowDType, slots: number): ForwardPass {
    const size = 2 ** Math.ceil(Math.log2(rows));
    const key = `${size} ${dtype} ${slots}`;
    const live = { ...this.#plan, slots };
    const pass =
      this.#passes.get(key) ??
      new ForwardPass(this.engine, {
        rows: size,
        dims: this.dims,
        live,
        raw: dtype,
        normalization: this.#normalization,
      });
    this.#passes.set(key, pass);
    return pass;
  }

  /** The same over exactly so many rows, with all that is reconstructed. */
  #measuring(rows: number, dtype: RowDType): ForwardPass {
    const key = `${rows} ${dtype} measured`;
    const { dims, prefixes } = this;
    const pass =
      this.#passes.get(key) ??
      new ForwardPass(this.engine, {
        ...{ rows, dims, live: this.#plan, prefixes, raw: dtype, normalization: this.#normalization },
      });
    this.#passes.set(key, pass);
    return pass;
  }

  #rowsIn(length: number): number {
    const rows = length / this.dims.dIn;
    if (!Number.isInteger(rows))
      throw new UsageError(`${length} numbers are no whole rows of ${this.dims.dIn}, the autoencoder's inputs`);
    return rows;
  }

  /** The passes are shared: calls go one after the other. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#life === "closed") throw new UsageError("the autoencoder was closed");
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}
