/** A trained autoencoder, ready to encode and decode rows on any engine. */

import { rowsToFloat32 } from "../data/convert.ts";
import type { RowDType } from "../data/source.ts";
import { allocParams, freeParams } from "../engine/allocate.ts";
import {
  type Engine,
  HYPER,
  HYPER_DEFAULTS,
  type Hyper,
  NONE,
  type Normalization,
  type Params,
  type SelectionPlan,
  type Tensor,
} from "../engine/engine.ts";
import { ForwardPass } from "../engine/forward.ts";
import { type Dtype, selectEngine } from "../engine/select.ts";
import { isSet, refuseUnset } from "../interchange/selection.ts";
import { rulesOf } from "../sae/architectures/index.ts";
import { normalizationOf, paramNames, type SaeDescription } from "../sae/description.ts";
import type { Dims } from "../sae/dims.ts";
import { LAYER_NORM_EPS, NO_NORMALIZATION, rowStatistics } from "../sae/math.ts";
import type { ParamName } from "../sae/params.ts";
import { mayOverflow, slotsFor } from "../sae/rule.ts";
import { BYTES, bytesOf, float32Of, float64Of, uint32Of } from "../util/bytes.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { checkWeights, type FoundSae, findSae, type SaeOrigin, type WeightsKind, writeParams } from "./weights.ts";

/**
 * At most k active latents per row: [B,k] each, in the order of the rule (sae/rule.ts): the
 * strongest first where k is fixed, by latent where a threshold decides, and k is then that of the
 * row with the most. An unused slot has latent NONE (2^32 - 1) and value 0.
 */
export interface SparseCodes {
  readonly k: number;
  readonly latent: Uint32Array;
  readonly value: Float32Array;
  /**
   * What `decode` needs to give rows back, where each row is normalised by itself ("unit",
   * "layer_norm").
   */
  readonly rows?: RowStatistics;
}

/**
 * mean and size [B]: a row is its normalised row times size, plus mean. Means of 0 and sizes of 1
 * stand for the space of normalised rows.
 */
export interface RowStatistics {
  readonly mean: Float64Array;
  readonly size: Float64Array;
}

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
const CAPACITY = 2048;
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

  /** rows [B*d] -> their codes. Throws SaettaError when a row is not finite. */
  encode(rows: Float32Array): Promise<SparseCodes> {
    return this.encodeRaw(bytesOf(rows), "f32", this.#rowsIn(rows.length));
  }

  /**
   * The same for `count` rows as little-endian bytes, in any dtype of activations, without a detour
   * through JavaScript numbers.
   */
  encodeRaw(raw: Uint8Array, dtype: RowDType, count: number): Promise<SparseCodes> {
    return this.#inTurn(async () => (await this.#forward(raw, dtype, count, undefined)).codes);
  }

  /**
   * The codes of the rows and their reconstruction [B*d], pre-bias added, in the space of the rows;
   * or of normalised rows, where each is normalised by itself.
   */
  reconstructRaw(
    raw: Uint8Array,
    dtype: RowDType,
    count: number,
    space: "rows" | "normalized" = "rows",
  ): Promise<{ readonly codes: SparseCodes; readonly output: Float32Array }> {
    return this.#inTurn(() => this.#forward(raw, dtype, count, space));
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
    const statistics = this.#statisticsIn(codes, rows);
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

  async #forward(
    raw: Uint8Array,
    dtype: RowDType,
    count: number,
    decode: "rows" | "normalized" | undefined,
  ): Promise<{ codes: SparseCodes; output: Float32Array }> {
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
      const pass = this.#pass(rows, dtype, this.k);
      const { engine } = this;
      engine.write(pass.raw!, raw.subarray(first * rowBytes, (first + rows) * rowBytes));
      // A pass is used whole: what it holds past the last row repeats that row, and is not looked
      // at.
      pass.prepare(
        NO_TRAINING,
        Uint32Array.from({ length: pass.rows }, (_, row) => Math.min(row, rows - 1)),
      );
      await pass.encodeFitting(this.#params, pass.raw!);
      const { codes, err: out } = pass.live;
      if (decode) pass.decode(this.#params);
      const pairs = engine.pairs(codes);
      const k = codes.capacity;
      const latent = uint32Of(await engine.read(pairs.latent)).subarray(0, rows * k);
      parts.push({ k, latent, value: (await this.#reals(pairs.value)).subarray(0, rows * k) });
      if (decode) this.#finish(await this.#reals(out), output, first, rows, decode === "rows" ? statistics : undefined);
      if (uint32Of(await engine.read(pass.step.bad))[0] !== 0)
        throw new SaettaError("a row that was to be encoded is not finite");
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

  /** undefined where nothing is done to rows. */
  #statisticsOf(raw: Uint8Array, dtype: RowDType, count: number): RowStatistics | undefined {
    if (this.#normalization.kind === "none") return undefined;
    const d = this.dims.dIn;
    const values = dtype === "f64" ? float64Of(raw) : rowsToFloat32(raw, dtype, count * d);
    const statistics = { mean: new Float64Array(count), size: new Float64Array(count) };
    for (let row = 0; row < count; row++) {
      const { mean, size } = rowStatistics(values.subarray(row * d, (row + 1) * d), this.#normalization);
      statistics.mean[row] = mean;
      // What the way back multiplies by; a constant row stays at 0.
      statistics.size[row] = this.description.saetta?.undoneWith === "std" ? Math.max(0, size - LAYER_NORM_EPS) : size;
    }
    return statistics;
  }

  #statisticsIn({ rows: given }: SparseCodes, rows: number): RowStatistics | undefined {
    const { kind } = this.#normalization;
    if (kind === "none") return undefined;
    if (given?.mean.length === rows && given.size.length === rows) return given;
    throw new UsageError(
      `the autoencoder normalises each row (${kind}), and the codes do not say the mean and size of ${rows} rows`,
      {
        mend: "decode the codes that encode returned, or give means of 0 and sizes of 1 for the space of normalised rows",
      },
    );
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

interface CodesOfRows {
  readonly k: number;
  readonly latent: Uint32Array;
  readonly value: Float32Array | Float64Array;
}

/** All rows with the same number of slots: `k`, or what the row with the most uses, at least 1. */
function together(
  parts: readonly CodesOfRows[],
  rows: number,
  k?: number,
): Pick<SparseCodes, "k" | "latent" | "value"> {
  const slots = k ?? Math.max(1, ...parts.map(mostUsed));
  const latent = new Uint32Array(rows * slots).fill(NONE);
  const value = new Float32Array(rows * slots);
  let row = 0;
  for (const part of parts) {
    for (let first = 0; first < part.latent.length; first += part.k, row++) {
      const end = first + Math.min(slots, part.k);
      latent.set(part.latent.subarray(first, end), row * slots);
      value.set(part.value.subarray(first, end), row * slots);
    }
  }
  return { k: slots, latent, value };
}

function mostUsed({ k, latent }: CodesOfRows): number {
  let most = 0;
  for (let first = 0; first < latent.length; first += k) {
    while (most < k && latent[first + most] !== NONE) most++;
  }
  return most;
}
