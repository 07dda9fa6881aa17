/**
 * The engine that is obviously right: every operation of engine.ts over the plain loops of
 * sae/math.ts, in float64, at the call. The others are compared with it. It deliberately does
 * nothing to be fast.
 */

import { type Collective, groupOf } from "../collective/collective.ts";
import { solo } from "../collective/solo.ts";
import * as maths from "../sae/math.ts";
import { CORE_PARAMS, paramEntries, parameterCount } from "../sae/params.ts";
import type { Rule } from "../sae/rule.ts";
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
  type GradsPlan,
  type Narrowing,
  NONE,
  type Over,
  type ParamGradInput,
  type Params,
  type ReduceOp,
  type Selection,
  type State,
  type Step,
  SUMS,
  type Tensor,
} from "./engine.ts";
import { hostMemory, writeRows } from "./host-rows.ts";
import {
  type AllHyper,
  elementsOf,
  hyperOf,
  isFull,
  markBad,
  markFull,
  own,
  ownCodes,
  ownGrads,
  ReferenceCodes,
  ReferenceGrads,
  ReferenceTensor,
} from "./reference-memory.ts";
import { narrowSum } from "./reference-narrow.ts";
import { ANY, fire, keepOfBatch, keepOfShards, selectRow } from "./reference-select.ts";
import { sidesOf } from "./selections.ts";
import { namedSums } from "./sums.ts";

/** What each selection chooses from; undefined: the dead. */
const CANDIDATES = { all: ANY, wide: () => true, dead: undefined } as const;

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

  grads(plan: GradsPlan): Grads {
    // Replicas sum whole gradients.
    return new ReferenceGrads(plan, plan.dense || this.#collective.grid.replicas > 1);
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

  load(raw: Tensor, rows: Tensor, x: Tensor, t: Step, normalization = maths.NO_NORMALIZATION, column = 0): void {
    this.#run(() => {
      if (isFull(t)) return;
      if (column === 0) for (const tensor of [t.sums, t.fired, t.bad, t.sq, t.cut, t.active]) own(tensor).bytes.fill(0);
      const [m] = raw.shape;
      const [B, d] = x.shape;
      const into = own(x).f64;
      const numbers = own(rows).u32;
      const rowOf = rowsOf(own(raw));
      for (let b = 0; b < B; b++) {
        if (numbers[b] >= m)
          throw new SaettaError(`row ${numbers[b]} was asked for, there are ${m}`, { where: "reference engine, load" });
        into.set(Array.prototype.slice.call(rowOf(numbers[b]), column, column + d), b * d);
        maths.normalizeRow(into.subarray(b * d, (b + 1) * d), normalization);
      }
      checkFinite(into, t);
    });
  }

  encode(p: Params, x: Tensor, t: Step, selections: readonly Selection[], age?: Tensor): void {
    this.#run(() => {
      const { live } = sidesOf(selections, "reference engine");
      const w = weightsOf(p);
      const [B, d] = x.shape;
      const hyper = hyperOf(t);
      const fired = own(t.fired).u32;
      const ages = age && own(age).u32;
      const isDead = (j: number) => ages !== undefined && maths.isDead(ages[j], hyper.deadAfter);
      if (ages !== undefined) own(t.sums).f64[SUMS.indexOf("dead")] = ages.filter((_, j) => isDead(j)).length;

      const pre = new Float64Array(w.latentBias.length);
      for (let row = 0; row < B; row++) {
        maths.preActivations(w, own(x).f64.subarray(row * d, (row + 1) * d), pre, p.untied);
        checkFinite(pre, t);
        for (const selection of selections) {
          const { rule, among, codes } = selection;
          const on = selectRow(rule, ownCodes(codes), row, pre, w, hyper, CANDIDATES[among] ?? isDead);
          if (on > codes.capacity) markFull(t);
          if (selection === live) fire(ownCodes(codes), row, hyper.firedAbove, fired);
          if (rule.kind === "threshold") own(t.active).f64[0]! += on;
        }
      }
    });
  }

  reconcile(rule: Rule, z: Codes, t: Step, live: boolean): void {
    const { shards } = this.#collective.grid;
    if (rule.kind === "topk" && shards > 1)
      this.#run(() => keepOfShards(this.#collective, rule.k, ownCodes(z), t, live));
    if (rule.kind === "batchtopk") this.#run(() => keepOfBatch(this.#collective, ownCodes(z), t));
  }

  allReduce(t: Tensor, op: ReduceOp, over: Over, narrow?: Narrowing): void {
    if (groupOf(this.#collective.grid, over).size === 1) return;
    this.#run(() => {
      const tensor = own(t);
      if (narrow !== undefined) {
        narrowSum(this.#collective, tensor.f64, over, narrow);
        return;
      }
      if (tensor.dtype !== "f64" && tensor.dtype !== "u32")
        throw new SaettaError(`a tensor of ${tensor.dtype} cannot be reduced`);
      this.#collective.allReduce(elementsOf(tensor.dtype === "f64" ? tensor.f64 : tensor.u32), op, over);
    });
  }

  decode(p: Params, { codes, err, prefixes }: Branch, x?: Tensor): void {
    this.#run(() => {
      const out = own(err).f64;
      maths.decode(own(p.decoder).f64, ownCodes(codes), out, prefixes);
      if (p.skip === undefined || x === undefined || this.#collective.grid.shard > 0) return;
      const size = codes.rows * p.preBias.shape[0];
      maths.addSkip(own(p.skip).f64, own(x).f64, out.subarray(0, size), x.shape[1]!);
    });
  }

  residual(p: Params, target: Tensor, t: Step, branch: Branch, live?: Branch): void {
    this.#run(() => {
      const sums = own(t.sums).f64;
      const add = (name: (typeof SUMS)[number], amount: number) => {
        sums[SUMS.indexOf(name)] += amount;
      };
      const err = own(branch.err).f64;
      const rows = own(target).f64;
      if (live) {
        maths.deadResidual(lastPlane(live, rows.length), err);
        add("auxErr2", maths.squares(err));
      } else {
        const preBias = own(p.preBias).f64;
        const d = preBias.length;
        const prefixes = branch.prefixes ?? maths.wholePrefix(NONE);
        const named = namedSums(sums, prefixes.length);
        maths.prefixResiduals(prefixes, preBias, rows, err).forEach((err2, g) => {
          named.prefixErr2[g]! += err2;
        });
        const residual = lastPlane(branch, rows.length);
        const centred = rows.map((value, e) => value - preBias[e % d]);
        add("err2", maths.squares(residual));
        add("x2", maths.squares(rows));
        add("centred2", maths.squares(centred));
        const { latent, value } = ownCodes(branch.codes);
        add("active", latent.filter((j) => j !== NONE).length);
        const { penalty, tanhScale } = hyperOf(t);
        if (maths.PENALTIES[penalty] === "tanh")
          add(
            "tanh",
            value.reduce((sum, f) => sum + Math.tanh(tanhScale * f), 0),
          );
        residual.forEach((each, e) => {
          named.errColumns[e % d] += each;
          named.centredColumns[e % d] += centred[e];
          if (prefixes.length > 1) named.planeColumns[e % d]! += err[e]!;
        });
      }
      checkFinite(err, t);
    });
  }

  codeGrad(p: Params, branch: Branch, t: Step): void {
    this.#run(() => {
      const codes = ownCodes(branch.codes);
      maths.codeGradients(own(p.decoder).f64, codes, own(branch.err).f64, branch.prefixes);
      checkFinite(codes.grad, t);
    });
  }

  paramGrad({ p, x, t, live, dead, wide, band, age, g }: ParamGradInput): void {
    this.#run(() => {
      const hyper = hyperOf(t);
      const { wideCoef } = hyper;
      const { rank, replica } = this.#collective.grid;
      const sums = namedSums(own(t.sums).f64, live.prefixes?.length);
      const scales = maths.lossScales(sums, hyper.rows, hyper.mseScale, hyper.auxCoef);
      const scaled = ({ codes, err, prefixes }: Branch, scale: number) => ({
        ...{ codes: ownCodes(codes), err: own(err).f64, scale, prefixes },
      });
      const { centredColumns } = sums;
      const wideColumns = wide && namedSums(own(wide.sums).f64).errColumns;
      // Relative to the live branch's factor.
      const planeColumns = sums.planeColumns.map((sum, i) => sum + wideCoef * (wideColumns?.[i] ?? 0));
      const ages = age && own(age).u32;
      const gradient = weightsOf(ownGrads(g).all);
      // The sums are of all replicas; what a transcoder encodes is not in them.
      const counted =
        p.untied === true
          ? { countedRows: x.shape[0]!, countedColumns: columnSums(own(x).f64, x.shape[1]!) }
          : replica === 0
            ? { countedRows: hyper.rows, countedColumns: centredColumns }
            : { countedRows: 0, countedColumns: new Float64Array(centredColumns.length) };
      maths.gradients(
        {
          w: weightsOf(p),
          x: own(x).f64,
          planeColumns: rank === 0 ? planeColumns : new Float64Array(planeColumns.length),
          live: scaled(live, scales.live),
          dead: wide ? scaled(wide.branch, wideCoef * scales.live) : dead && scaled(dead, scales.dead),
          untied: p.untied,
          band: band && ownCodes(band),
          sparsity: p.sparsity && sparsityOf(hyper, own(p.sparsity).f64[0]!, own(t.active).f64[0]!),
          isDead: ages && ((j) => maths.isDead(ages[j]!, hyper.deadAfter)),
          ...counted,
        },
        gradient,
      );
      for (const [, , values] of paramEntries(gradient))
        if (!values.every((each) => Number.isFinite(each * each))) markBad(t);
    });
  }

  norm(p: Params, g: Grads, t: Step): void {
    this.#run(() => {
      const gradient = weightsOf(ownGrads(g).all);
      const decoder = gradient.decoder.slice();
      if (hyperOf(t).unitRows) maths.project(own(p.decoder).f64, decoder, p.preBias.shape[0]);
      const sq = own(t.sq).f64;
      const counted = paramEntries(gradient).filter(([, { sharded }]) => sharded || this.#collective.grid.shard === 0);
      sq[0] = counted.reduce((sum, [name, , g]) => sum + maths.squares(name === "decoder" ? decoder : g), 0);
      checkFinite(sq, t);
    });
  }

  update(s: State, g: Grads, t: Step): void {
    this.#run(() => {
      if (isFull(t)) return;
      const counters = own(s.counters).f64;
      const count = (name: (typeof COUNTERS)[number]) => ++counters[COUNTERS.indexOf(name)];
      if (own(t.bad).u32[0] !== 0) {
        count("skipped");
        return;
      }
      const hyper = hyperOf(t);
      const d = s.params.preBias.shape[0];
      const [w, m, v, gradient] = [weightsOf(s.params), weightsOf(s.m), weightsOf(s.v), weightsOf(ownGrads(g).all)];
      const decoder = gradient.decoder.slice();
      if (hyper.unitRows) maths.project(w.decoder, decoder, d);
      const factor = maths.clipFactor(Math.sqrt(own(t.sq).f64[0]), hyper.clip);
      const step = { ...hyper, t: count("adam") };
      for (const [name, , g] of paramEntries({ ...gradient, decoder })) {
        maths.adam(step, w[name]!, m[name]!, v[name]!, g, factor);
      }
      const firstLatent = this.#collective.grid.shard * s.age.shape[0];
      if (hyper.unitRows) maths.unitRows(w.decoder, m.decoder, v.decoder, d, step.t, firstLatent);
      if (w.cut !== undefined) maths.moveCut(w.cut, own(t.cut).f64[0]!, hyper.cutDecay);
      if (w.sparsity !== undefined)
        maths.control(w.sparsity, own(t.active).f64[0]! / hyper.rows, hyper.targetL0, hyper.gain);
      if (s.ema !== undefined && hyper.emaDecay > 0) {
        const ema = weightsOf(s.ema);
        for (const [name, { update }, weights] of paramEntries(w)) {
          if (update === "adam" || update === "adam, unit rows") maths.average(ema[name]!, weights, hyper.emaDecay);
          else ema[name]!.set(weights);
        }
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

/** The residual of the whole autoencoder, of `size` numbers. */
function lastPlane({ err }: Branch, size: number): Float64Array {
  const all = own(err).f64;
  return all.subarray(all.length - size);
}

/** rows [B,d] -> [d] */
function columnSums(rows: Float64Array, d: number): Float64Array {
  const sums = new Float64Array(d);
  rows.forEach((value, e) => {
    sums[e % d]! += value;
  });
  return sums;
}

function sparsityOf(hyper: AllHyper, multiplier: number, active: number): maths.Sparsity {
  const { penalty, sparsity, tanhScale, targetL0, deadPenalty, bandwidth, rows } = hyper;
  return {
    kind: maths.PENALTIES[penalty]!,
    coefficient: sparsity * multiplier,
    scale: tanhScale,
    target: targetL0,
    ...{ deadPenalty, bandwidth, rows, l0: active / rows },
  };
}

function checkFinite(values: Float64Array, t: Step): void {
  if (!values.every(Number.isFinite)) markBad(t);
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
