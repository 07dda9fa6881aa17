/**
 * One step on an engine and on the reference, compared after each operation; the reference then
 * takes over the engine's numbers.
 */

import * as maths from "../sae/math.ts";
import {
  absolute,
  absolutePairs,
  centred,
  decodeMagnitudes,
  gradientMagnitudes,
  NARROWINGS,
  projectedMagnitudes,
  residualMagnitudes,
  SLACK,
} from "./conformance-bounds.ts";
import { type BranchName, type CodesName, GuardedStep, type Setup } from "./conformance-guarded-step.ts";
import { SelectionComparison } from "./conformance-selection.ts";
import type { Tally } from "./conformance-tally.ts";
import { hyperValues } from "./contract/names.ts";
import { COUNTERS, type Engine, HYPER, type Hyper, SUMS } from "./engine.ts";
import { ROUNDING, storedNumber } from "./numbers.ts";
import { namedSums } from "./sums.ts";

/**
 * What the inputs of a setup promise: `exact` numbers sum without rounding in any order, so
 * selection must be equal bit for bit, ties too.
 */
export interface Options {
  readonly exact?: boolean;
  /** Ends with the codes. */
  readonly until?: "selection";
  readonly steps?: number;
}

/** Runs and compares whole steps, the second from where the first ended, and so on. */
export async function checkSteps(
  tally: Tally,
  engine: Engine,
  reference: Engine,
  drawn: Setup,
  options: Options = {},
): Promise<void> {
  const setup = { ...drawn, hyper: storedHyper(engine, drawn.hyper) };
  const e = await GuardedStep.create(engine, setup);
  const r = await GuardedStep.create(reference, setup, true);
  try {
    for (let step = 0; step < (options.steps ?? 1); step++)
      await new Comparison(tally, e, r, options.exact ?? false).step(options.until);
  } finally {
    e.free();
    r.free();
  }
}

/** Both engines are given the numbers that the one to be tried can store. */
function storedHyper(engine: Engine, hyper: Hyper): Hyper {
  const values = hyperValues(hyper);
  return Object.fromEntries(HYPER.map((name, i) => [name, storedNumber(engine, values[i]!)])) as Required<Hyper>;
}

class Comparison {
  readonly #tally: Tally;
  readonly #e: GuardedStep;
  readonly #r: GuardedStep;
  readonly #selection: SelectionComparison;
  /**
   * What a product may be off by, as a part of the sum of absolute values, because its factors are
   * rounded to a narrower type; 0 where they are not.
   */
  readonly #narrow: number;
  readonly #unit: number;
  /**
   * What storing the numbers of a step may add, as a part of each; 0 where they are stored as the
   * reference does.
   */
  readonly #stored: number;

  constructor(tally: Tally, e: GuardedStep, r: GuardedStep, exact: boolean) {
    this.#tally = tally;
    this.#e = e;
    this.#r = r;
    this.#narrow = NARROWINGS * (e.engine.rounding ?? 0);
    this.#unit = SLACK * ROUNDING[e.engine.real] + this.#narrow;
    this.#selection = new SelectionComparison(tally, e, r, {
      ...{ exact: exact && this.#narrow === 0, narrow: this.#narrow, unit: this.#unit },
    });
    this.#stored = e.engine.numbers === "f64" ? 0 : SLACK * ROUNDING[e.engine.numbers];
  }

  async step(until?: Options["until"]): Promise<void> {
    await this.#begin();
    if (this.#r.isFull) {
      // Neither the update nor the next load may write anything.
      await this.#both((w) => w.afterSelection());
      await this.#both((w) => w.load());
      return;
    }
    if (until === "selection") return;
    for (const branch of this.#r.branches) {
      await this.#both((w) => w.decode(branch));
      this.#decode(branch);
      await this.#sync(`${branch}.err`);
      await this.#both((w) => w.residual(branch));
      this.#residual(branch);
      await this.#sync(`${branch}.err`, "sums");
      await this.#both((w) => w.codeGrad(branch));
      this.#codeGrad(branch);
      await this.#sync(`${branch}.grad`);
    }
    if (this.#r.band !== undefined) {
      await this.#both((w) => w.codeGrad("band"));
      this.#codeGrad("band");
      await this.#sync("band.grad");
    }
    const magnitudes = gradientMagnitudes(this.#r, namedSums(this.#r.get("sums"), this.#planes));
    await this.#both((w) => w.paramGrad());
    const names = this.#r.gradientNames;
    for (const name of names) this.#near(`g.${name}`, (i) => magnitudes[name]![i]);
    await this.#sync(...names.map((name) => `g.${name}`));
    const projected = this.#projects
      ? projectedMagnitudes(this.#r.get("decoder"), magnitudes, this.#r.setup.dims.dOut)
      : magnitudes;
    await this.#both((w) => w.norm());
    this.#norm(projected);
    await this.#sync("sq");
    this.#tally.same("bad", this.#e.get("bad"), this.#r.get("bad"));
    await this.#checkUpdate(projected);
    await this.#sync(
      "age",
      "counters",
      ...["", "m.", "v.", "ema."].flatMap((prefix) => this.#r.paramNames.map((name) => `${prefix}${name}`)),
    );
  }

  /** -> x and the codes of the step. */
  async #begin(): Promise<void> {
    const { given } = this.#r.setup;
    if (given !== undefined) {
      await this.#both((w) => w.give(given));
      return;
    }
    await this.#both((w) => w.load());
    this.#load();
    await this.#sync("x");
    await this.#select();
  }

  /** Of the live err. */
  get #planes(): number {
    return this.#r.setup.prefixes?.length ?? 1;
  }

  get #projects(): boolean {
    return this.#r.setup.hyper.unitRows !== 0;
  }

  async #both(operation: (w: GuardedStep) => Promise<void>): Promise<void> {
    await operation(this.#e);
    await operation(this.#r);
  }

  async #sync(...names: string[]): Promise<void> {
    await this.#r.takeFrom(this.#e, names);
  }

  /**
   * Each element within the rounding of the sum of absolute values `magnitude`. Tensors that the
   * engine does not show are passed over.
   */
  #near(name: string, magnitude: (i: number) => number): void {
    if (!this.#e.names.includes(name)) return;
    this.#tally.compare(name, this.#e.get(name), this.#r.get(name), (i) => this.#unit * magnitude(i));
  }

  #load(): void {
    const round = this.#e.engine.real === "f32" ? Math.fround : (value: number) => value;
    this.#tally.same("x", this.#e.get("x"), this.#r.get("x").map(round));
    for (const name of ["sums", "fired", "bad", "sq", "cut of the step", "active"])
      this.#tally.same(name, this.#e.get(name), this.#r.get(name));
  }

  async #select(): Promise<void> {
    const codes = this.#r.selections.flatMap(([name]) => [`${name}.latent`, `${name}.value`, `${name}.grad`]);
    await this.#both((w) => w.encode());
    this.#selection.encode();
    await this.#sync("sums", "fired", "active", ...codes);
    for (const [name, { rule }] of this.#r.selections) {
      if (rule.kind === "topk" || this.#r.isFull) continue;
      await this.#both((w) => w.reconcile(name));
      this.#selection.reconcile(name);
      await this.#sync("fired", "cut of the step", ...codes);
    }
  }

  #decode(branch: BranchName): void {
    const magnitude = decodeMagnitudes(this.#r, branch);
    const small = this.#belowNormal(branch);
    this.#near(`${branch}.err`, (i) => magnitude[i] + small(i) / this.#unit);
  }

  /**
   * What the copy of the decoder in float16 may add to element i of err: elements below its normal
   * numbers are off by up to half of their spacing.
   */
  #belowNormal(branch: BranchName): (i: number) => number {
    const { B, dims } = this.#r.setup;
    if (this.#e.engine.rounding !== FLOAT16) return () => 0;
    const values = this.#r.get(`${branch}.value`);
    const slots = values.length / B;
    const sums = Float64Array.from({ length: B }, (_, row) =>
      values.subarray(row * slots, (row + 1) * slots).reduce((sum, value) => sum + Math.abs(value), 0),
    );
    return (i) => FLOAT16_SPACING * sums[Math.floor((i % (B * dims.dOut)) / dims.dOut)]!;
  }

  #residual(branch: BranchName): void {
    const { B, dims } = this.#r.setup;
    const decoded = decodeMagnitudes(this.#r, branch);
    const { err, prefixErr2 } = residualMagnitudes(this.#r, branch, decoded);
    this.#near(`${branch}.err`, (i) => err[i]);
    const [actual, expected] = [this.#e.get("sums"), this.#r.get("sums")];
    const own = namedSums(expected.slice(), this.#planes);
    const tolerance = new Float64Array(expected.length);
    const allowed = namedSums(tolerance, this.#planes);
    const allow = (name: (typeof SUMS)[number], amount: number) => {
      tolerance[SUMS.indexOf(name)] = this.#unit * amount;
    };
    // A sum of squares of numbers each off by t is off by up to 2 |number| t; and the number's own
    // square is rounded.
    const last = err.subarray(err.length - B * dims.dOut);
    const residual = this.#e.get(`${branch}.err`).subarray(err.length - last.length);
    const squaresSlack = residual.reduce((sum, value, i) => sum + 2 * Math.abs(value) * last[i] + value * value, 0);
    if (branch === "dead") allow("auxErr2", squaresSlack);
    else {
      allow("err2", squaresSlack);
      allow("x2", own.x2);
      allow("centred2", own.centred2);
      allow("tanh", own.tanh);
      const distance = centred(this.#r.target(), this.#r.get("preBias"));
      const columns = [[allowed.errColumns, last] as const, [allowed.centredColumns, distance] as const];
      if (this.#planes > 1) columns.push([allowed.planeColumns, err.subarray(0, last.length)]);
      for (const [column, magnitude] of columns)
        for (let i = 0; i < magnitude.length; i++) column[i % dims.dOut] += this.#unit * magnitude[i];
      prefixErr2.forEach((square, g) => {
        allowed.prefixErr2[g] = 3 * this.#unit * square;
      });
    }
    this.#tally.compare("sums", actual, expected, (i) => tolerance[i] + this.#stored * Math.abs(expected[i]));
  }

  #codeGrad(name: CodesName): void {
    const magnitudes = {
      ...absolutePairs(this.#r, name),
      grad: new Float64Array(this.#r.get(`${name}.grad`).length),
    };
    const err = absolute(this.#r.get(name === "dead" ? "dead.err" : "live.err"));
    const prefixes = name === "dead" ? undefined : this.#r.setup.prefixes;
    maths.codeGradients(absolute(this.#r.get("decoder")), magnitudes, err, prefixes);
    this.#near(`${name}.grad`, (i) => magnitudes.grad[i]);
    this.#selection.unusedGradients();
  }

  #norm(projected: maths.Weights): void {
    const gradient = this.#projectedGradient();
    let slack = 0;
    for (const name of this.#r.gradientNames) {
      gradient[name]!.forEach((g, i) => {
        const off = this.#unit * projected[name]![i];
        slack += 2 * Math.abs(g) * off + off * off;
      });
    }
    const sq = this.#r.get("sq");
    this.#tally.compare("sq", this.#e.get("sq"), sq, () => slack + (this.#unit + this.#stored) * sq[0]);
  }

  #projectedGradient(): maths.Weights {
    const gradient = this.#r.weights("g.");
    const decoder = gradient.decoder.slice();
    if (this.#projects) maths.project(this.#r.get("decoder"), decoder, this.#r.setup.dims.dOut);
    return { ...gradient, decoder };
  }

  /**
   * m and v within what the gradient's rounding does to them; weights within their own, given the
   * engine's m and v; the average, given its weights.
   */
  async #checkUpdate(projected: maths.Weights): Promise<void> {
    const { hyper } = this.#r.setup;
    const gradient = this.#projectedGradient();
    const [w, m, v] = [this.#r.weights(), this.#r.weights("m."), this.#r.weights("v.")];
    const ema = this.#r.names.includes("ema.encoder") ? this.#r.weights("ema.") : undefined;
    const factor = maths.clipFactor(Math.sqrt(this.#r.get("sq")[0]), hyper.clip);
    await this.#both((guarded) => guarded.update());
    for (const name of ["age", "counters"]) this.#tally.same(name, this.#e.get(name), this.#r.get(name));
    this.#checkUnlearned(w, ema);
    const t = this.#r.get("counters")[COUNTERS.indexOf("adam")];
    for (const name of this.#r.gradientNames) {
      const g = (i: number) => factor * projected[name]![i];
      this.#near(`m.${name}`, (i) => hyper.beta1 * Math.abs(m[name]![i]) + (1 - hyper.beta1) * g(i));
      this.#near(`v.${name}`, (i) => {
        const doubled = 2 * factor * Math.abs(gradient[name]![i]) * g(i) + this.#unit * g(i) ** 2;
        return hyper.beta2 * v[name]![i] + (1 - hyper.beta2) * doubled + TINY / this.#unit;
      });
      const move = (guarded: GuardedStep) => {
        const [mNow, vNow] = [guarded.get(`m.${name}`), guarded.get(`v.${name}`)];
        const root = (i: number) => Math.sqrt(vNow[i] / (1 - hyper.beta2 ** t)) + hyper.eps;
        return mNow.map((value, i) => (hyper.lr * (value / (1 - hyper.beta1 ** t))) / root(i));
      };
      const [moved, expected] = [move(this.#e), move(this.#r)];
      const off = moved.map(
        (value, i) => this.#unit * (Math.abs(w[name]![i]) + Math.abs(value)) + Math.abs(value - expected[i]),
      );
      const allowed = name === "decoder" && this.#projects ? this.#afterUnitNorm(w.decoder, expected, off) : off;
      this.#tally.compare(name, this.#e.get(name), this.#r.get(name), (i) => allowed[i]);
      if (ema !== undefined) {
        const now = this.#e.get(name);
        const average = ema[name]!.slice();
        if (hyper.emaDecay > 0) maths.average(average, now, hyper.emaDecay);
        const magnitude = (i: number) => Math.abs(ema[name]![i]) + Math.abs(now[i]);
        this.#tally.compare(`ema.${name}`, this.#e.get(`ema.${name}`), average, (i) => this.#unit * magnitude(i));
      }
    }
  }

  /** What has no gradient; `w` and `ema` are from before the update. */
  #checkUnlearned(w: maths.Weights, ema: maths.Weights | undefined): void {
    const { hyper } = this.#r.setup;
    if (w.cut !== undefined) this.#near("cut", () => Math.abs(w.cut![0]) + this.#r.get("cut of the step")[0]);
    if (w.sparsity !== undefined) {
      const l0 = this.#r.get("active")[0] / hyper.rows;
      this.#near("sparsity", (i) => 2 * Math.abs(this.#r.get("sparsity")[i]) + Math.abs(w.sparsity![i]) + i * l0);
    }
    for (const name of ["cut", "sparsity"] as const) {
      if (w[name] === undefined || ema === undefined) continue;
      this.#tally.same(`ema.${name}`, this.#e.get(`ema.${name}`), hyper.emaDecay > 0 ? this.#e.get(name) : ema[name]!);
    }
  }

  /**
   * What an error `off` of each element becomes when its row [d] is brought to length 1; a row
   * without a length is drawn anew.
   */
  #afterUnitNorm(before: Float64Array, moved: Float64Array, off: Float64Array): Float64Array {
    const now = this.#r.get("decoder");
    const d = this.#r.setup.dims.dOut;
    const allowed = new Float64Array(off.length);
    for (let start = 0; start < off.length; start += d) {
      const slice = [start, start + d] as const;
      const length = Math.sqrt(maths.squares(before.subarray(...slice).map((value, i) => value - moved[start + i])));
      const offLength = Math.sqrt(maths.squares(off.subarray(...slice)));
      for (let i = start; i < start + d; i++) {
        allowed[i] =
          length < maths.SHORTEST_ROW
            ? this.#unit
            : (off[i] + offLength * Math.abs(now[i])) / length + this.#unit * Math.abs(now[i]);
      }
    }
    return allowed;
  }
}

/** Where f32 has no more precision to lose. */
const TINY = 2 ** -126;

/** Rounding of float16 (cuda's fp16), and the distance of its smallest numbers. */
const FLOAT16 = 2 ** -11;
const FLOAT16_SPACING = 2 ** -24;
