/**
 * The engine that is obviously right: every operation of engine.ts over the plain loops of
 * sae/math.ts, in float64, at the call. The others are compared with it. It deliberately does
 * nothing to be fast.
 */

import { type Collective, type Elements, groupOf } from "../collective/collective.ts";
import { solo } from "../collective/solo.ts";
import * as maths from "../sae/math.ts";
import { CORE_PARAMS, paramEntries, parameterCount } from "../sae/params.ts";
import type { Rule } from "../sae/rule.ts";
import { bytesOf } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { decodeBfloat16, decodeFloat16 } from "../util/float16.ts";
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
  NONE,
  type Over,
  type Params,
  type ReduceOp,
  type Selection,
  type SelectionPlan,
  type State,
  type Step,
  SUMS,
  type Tensor,
} from "./engine.ts";
import { hostMemory, writeRows } from "./host-rows.ts";
import { own, ownCodes, ownGrads, ReferenceCodes, ReferenceGrads, ReferenceTensor } from "./reference-memory.ts";
import { namedSums } from "./sums.ts";

/** Elements above which an array is no longer certain to be allocated. */
const MAX_ELEMENTS = 2 ** 31;

export function createReferenceEngine(collective: Collective = solo()): Engine {
  return new ReferenceEngine(collective);
}

class ReferenceEngine implements Engine {
  readonly name = "reference";
  readonly description = "reference: plain loops in float64, 1 thread";
  readonly real = "f64";
  readonly numbers = "f64";
  readonly #collective: Collective;
  #failure: { readonly thrown: unknown } | undefined;

  constructor(collective: Collective) {
    this.#collective = collective;
  }

  refuses(dims: Dims): string | undefined {
    return parameterCount(dims, CORE_PARAMS) > MAX_ELEMENTS
      ? `the reference engine holds at most ${MAX_ELEMENTS} parameters`
      : undefined;
  }

  alloc(dtype: DType, shape: readonly number[]): Tensor {
    return new ReferenceTensor(dtype, shape);
  }

  codes(rows: number, capacity: number): Codes {
    return new ReferenceCodes(rows, capacity);
  }

  grads(dims: Dims, _rows: number, _selections: readonly SelectionPlan[], dense: boolean): Grads {
    // Replicas sum whole gradients.
    return new ReferenceGrads(dims, dense || this.#collective.grid.replicas > 1);
  }

  free(it: Tensor | Codes | Grads): void {
    const tensors =
      it instanceof ReferenceGrads
        ? Object.values(it.all)
        : it instanceof ReferenceCodes
          ? Object.values(it.tensors)
          : [own(it)];
    for (const t of tensors) t.free();
  }

  write(t: Tensor, bytes: Uint8Array, at = 0): void {
    const into = own(t).bytes;
    if (at < 0 || at + bytes.length > into.length) {
      throw new SaettaError(`${bytes.length} bytes at ${at} do not fit a tensor of ${into.length} bytes`, {
        where: "reference engine",
      });
    }
    into.set(bytes, at);
  }

  hostMemory(bytes: number): Uint8Array<ArrayBuffer> {
    return hostMemory(bytes);
  }

  upload(raw: Tensor, bytes: Uint8Array, row: number): Promise<readonly number[]> {
    return writeRows(this, raw, bytes, row);
  }

  read(t: Tensor): Promise<Uint8Array> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure.thrown);
    return Promise.resolve(own(t).bytes.slice());
  }

  pairs(z: Codes): { readonly latent: Tensor; readonly value: Tensor; readonly grad: Tensor } {
    return ownCodes(z).tensors;
  }

  load(raw: Tensor, rows: Tensor, x: Tensor, t: Step, normalization = maths.NO_NORMALIZATION): void {
    this.#run(() => {
      for (const tensor of [t.sums, t.fired, t.bad, t.sq]) own(tensor).bytes.fill(0);
      const [m, d] = raw.shape;
      const into = own(x).f64;
      const numbers = own(rows).u32;
      const rowOf = rowsOf(own(raw));
      for (let b = 0; b < x.shape[0]; b++) {
        if (numbers[b] >= m)
          throw new SaettaError(`row ${numbers[b]} was asked for, there are ${m}`, { where: "reference engine, load" });
        into.set(rowOf(numbers[b]), b * d);
        maths.normalizeRow(into.subarray(b * d, (b + 1) * d), normalization);
      }
      checkFinite(into, t);
    });
  }

  encode(p: Params, x: Tensor, t: Step, selections: readonly Selection[], age?: Tensor): void {
    this.#run(() => {
      const w = weightsOf(p);
      const [B, d] = x.shape;
      const hyper = hyperOf(t);
      const fired = own(t.fired).u32;
      const ages = age && own(age).u32;
      const isDead = (j: number) => ages !== undefined && maths.isDead(ages[j], hyper.deadAfter);
      if (ages !== undefined) own(t.sums).f64[SUMS.indexOf("dead")] = ages.filter((_, j) => isDead(j)).length;

      const pre = new Float64Array(w.latentBias.length);
      for (let row = 0; row < B; row++) {
        maths.preActivations(w, own(x).f64.subarray(row * d, (row + 1) * d), pre);
        checkFinite(pre, t);
        for (const { rule, among, codes } of selections) {
          const on = selectRow(rule, ownCodes(codes), row, pre, w, among === "dead" ? isDead : () => true);
          if (among === "all") for (const { latent, value } of on) if (value > hyper.firedAbove) fired[latent] = 1;
        }
      }
    });
  }

  reconcile(rule: Rule, z: Codes, t?: Step): void {
    const { shards, shard } = this.#collective.grid;
    if (shards === 1 || rule.kind !== "topk") return;
    this.#run(() => {
      const codes = ownCodes(z);
      const { value } = codes;
      const all = new Float64Array(shards * value.length);
      this.#collective.allGather(elementsOf(value), elementsOf(all), "shards");
      const fired = t && own(t.fired).u32;
      const above = t && hyperOf(t).firedAbove;
      fired?.fill(0);
      for (let row = 0; row < z.rows; row++) {
        const first = row * z.capacity;
        const values = Array.from({ length: shards }, (_, s) =>
          all.subarray(s * value.length + first, s * value.length + first + z.capacity),
        );
        const kept = first + maths.keptOfShard(values, shard, rule.k);
        for (let slot = first; slot < kept; slot++) if (fired && value[slot] > above!) fired[codes.latent[slot]] = 1;
        codes.latent.fill(NONE, kept, first + z.capacity);
        value.fill(0, kept, first + z.capacity);
      }
    });
  }

  allReduce(t: Tensor, op: ReduceOp, over: Over): void {
    if (groupOf(this.#collective.grid, over).size === 1) return;
    this.#run(() => {
      const tensor = own(t);
      if (tensor.dtype !== "f64" && tensor.dtype !== "u32")
        throw new SaettaError(`a tensor of ${tensor.dtype} cannot be reduced`);
      this.#collective.allReduce(elementsOf(tensor.dtype === "f64" ? tensor.f64 : tensor.u32), op, over);
    });
  }

  decode(p: Params, z: Codes, err: Tensor): void {
    this.#run(() => maths.decode(own(p.decoder).f64, ownCodes(z), own(err).f64));
  }

  residual(p: Params, target: Tensor, t: Step, branch: Branch, live?: Branch): void {
    this.#run(() => {
      const sums = own(t.sums).f64;
      const add = (name: (typeof SUMS)[number], amount: number) => {
        sums[SUMS.indexOf(name)] += amount;
      };
      const err = own(branch.err).f64;
      if (live) {
        maths.deadResidual(own(live.err).f64, err);
        add("auxErr2", maths.squares(err));
      } else {
        const rows = own(target).f64;
        const preBias = own(p.preBias).f64;
        const d = preBias.length;
        maths.liveResidual(preBias, rows, err);
        const centred = rows.map((value, e) => value - preBias[e % d]);
        add("err2", maths.squares(err));
        add("x2", maths.squares(rows));
        add("centred2", maths.squares(centred));
        add("active", ownCodes(branch.codes).value.filter((value) => value > 0).length);
        const { errColumns, centredColumns } = namedSums(sums);
        err.forEach((value, e) => {
          errColumns[e % d] += value;
          centredColumns[e % d] += centred[e];
        });
      }
      checkFinite(err, t);
    });
  }

  codeGrad(p: Params, branch: Branch, t: Step): void {
    this.#run(() => {
      const codes = ownCodes(branch.codes);
      maths.codeGradients(own(p.decoder).f64, codes, own(branch.err).f64);
      checkFinite(codes.grad, t);
    });
  }

  paramGrad(p: Params, x: Tensor, t: Step, live: Branch, dead: Branch | undefined, g: Grads): void {
    this.#run(() => {
      const { rows, mseScale, auxCoef } = hyperOf(t);
      const sums = namedSums(own(t.sums).f64);
      const scales = maths.lossScales(sums, rows, mseScale, auxCoef);
      const scaled = (branch: Branch, scale: number) => ({
        codes: ownCodes(branch.codes),
        err: own(branch.err).f64,
        scale,
      });
      const deadPath = dead && scaled(dead, scales.dead);
      const gradient = weightsOf(ownGrads(g).all);
      const errColumns = this.#collective.grid.rank === 0 ? sums.errColumns : new Float64Array(sums.errColumns.length);
      maths.gradients(weightsOf(p), own(x).f64, errColumns, scaled(live, scales.live), deadPath, gradient);
      for (const [, , values] of paramEntries(gradient))
        if (!values.every((each) => Number.isFinite(each * each))) own(t.bad).u32[0] = 1;
    });
  }

  norm(p: Params, g: Grads, t: Step): void {
    this.#run(() => {
      const gradient = weightsOf(ownGrads(g).all);
      const decoder = gradient.decoder.slice();
      maths.project(own(p.decoder).f64, decoder, p.preBias.shape[0]);
      const sq = own(t.sq).f64;
      const counted = paramEntries(gradient).filter(([, { sharded }]) => sharded || this.#collective.grid.shard === 0);
      sq[0] = counted.reduce((sum, [name, , g]) => sum + maths.squares(name === "decoder" ? decoder : g), 0);
      checkFinite(sq, t);
    });
  }

  update(s: State, g: Grads, t: Step): void {
    this.#run(() => {
      const counters = own(s.counters).f64;
      const count = (name: (typeof COUNTERS)[number]) => ++counters[COUNTERS.indexOf(name)];
      if (own(t.bad).u32[0] !== 0) {
        count("skipped");
        return;
      }
      const hyper = hyperOf(t);
      const d = s.params.preBias.shape[0];
      const [w, m, v, gradient] = [weightsOf(s.params), weightsOf(s.m), weightsOf(s.v), weightsOf(ownGrads(g).all)];
      const decoderGradient = gradient.decoder.slice();
      maths.project(w.decoder, decoderGradient, d);
      const factor = maths.clipFactor(Math.sqrt(own(t.sq).f64[0]), hyper.clip);
      const step = { ...hyper, t: count("adam") };
      for (const [name, , g] of paramEntries({ ...gradient, decoder: decoderGradient })) {
        maths.adam(step, w[name]!, m[name]!, v[name]!, g, factor);
      }
      const firstLatent = this.#collective.grid.shard * s.age.shape[0];
      maths.unitRows(w.decoder, m.decoder, v.decoder, d, step.t, firstLatent);
      if (s.ema !== undefined && hyper.emaDecay > 0) {
        const ema = weightsOf(s.ema);
        for (const [name, , weights] of paramEntries(w)) maths.average(ema[name]!, weights, hyper.emaDecay);
        count("ema");
      }
      const fired = own(t.fired).u32;
      const ages = own(s.age).u32;
      for (let j = 0; j < ages.length; j++) ages[j] = maths.nextAge(ages[j], fired[j] !== 0, hyper.rows);
    });
  }

  /** Replicas update all rows. */
  complete(_s: State): void {}

  record(step: () => void): () => void {
    return step;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** What fails in an operation is kept for `read`; nothing runs after it. */
  #run(operation: () => void): void {
    if (this.#failure !== undefined) return;
    try {
      operation();
    } catch (thrown) {
      this.#failure = { thrown };
    }
  }
}

/** Applies the rule to one row; slots left over are unused. Returns the pairs. */
function selectRow(
  rule: Rule,
  z: maths.Pairs,
  row: number,
  pre: Float64Array,
  w: maths.Weights,
  isCandidate: (j: number) => boolean,
): { latent: number; value: number }[] {
  const part = <A extends Uint32Array | Float64Array>(a: A) =>
    a.subarray(row * z.capacity, (row + 1) * z.capacity) as A;
  const latent = part(z.latent);
  const value = part(z.value);
  const on =
    rule.kind === "topk"
      ? maths.topK(pre, z.capacity, latent, value, isCandidate)
      : maths.aboveThreshold(pre, w.threshold!, latent, value, isCandidate);
  latent.fill(NONE, on);
  value.fill(0, on);
  part(z.grad).fill(0);
  return Array.from(value.subarray(0, on), (v, slot) => ({ latent: latent[slot], value: v }));
}

/** Numbers of JavaScript for a collective. */
function elementsOf(values: Float64Array | Uint32Array): Elements {
  return { at: bytesOf(values), count: values.length, dtype: values instanceof Float64Array ? "f64" : "u32" };
}

function checkFinite(values: Float64Array, t: Step): void {
  if (!values.every(Number.isFinite)) own(t.bad).u32[0] = 1;
}

function hyperOf(t: Step): Hyper {
  const values = own(t.hyper).f64;
  return Object.fromEntries(HYPER.map((name, i) => [name, values[i]])) as Hyper;
}

function weightsOf(p: Params): maths.Weights {
  return Object.fromEntries(paramEntries(p).map(([name, , tensor]) => [name, own(tensor).f64])) as maths.Weights;
}

/** Row r of a tensor of floats [m,d], as numbers. */
function rowsOf(t: ReferenceTensor): (row: number) => ArrayLike<number> {
  const d = t.shape[1];
  const part =
    <A extends Uint16Array | Float32Array | Float64Array>(a: A) =>
    (row: number) =>
      a.subarray(row * d, (row + 1) * d) as A;
  const buffer = t.bytes.buffer;
  switch (t.dtype) {
    case "f64":
      return part(new Float64Array(buffer));
    case "f32":
      return part(new Float32Array(buffer));
    case "f16":
      return (row) => decodeFloat16(part(new Uint16Array(buffer))(row));
    case "bf16":
      return (row) => decodeBfloat16(part(new Uint16Array(buffer))(row));
    default:
      throw new SaettaError(`rows of ${t.dtype} cannot be loaded`, { where: "reference engine, load" });
  }
}
