/**
 * One step on an engine and on the reference, compared after each operation; the reference then
 * takes over the engine's numbers.
 */

import * as maths from "../sae/math.ts";
import { CORE_PARAMS } from "../sae/params.ts";
import { SaettaError } from "../util/errors.ts";
import {
  absolute,
  absolutePairs,
  centred,
  gradientMagnitudes,
  NARROWINGS,
  preActivations,
  projectedMagnitudes,
  SLACK,
} from "./conformance-bounds.ts";
import { type BranchName, GuardedStep, type Setup } from "./conformance-guarded-step.ts";
import { hyperValues } from "./contract/names.ts";
import { COUNTERS, type Engine, HYPER, type Hyper, NONE, SUMS } from "./engine.ts";
import { ROUNDING, storedNumber } from "./numbers.ts";
import { namedSums } from "./sums.ts";

/**
 * The largest differences seen: as a part of what rounding allows, and relative to the largest
 * number of the tensor.
 */
export class Tally {
  worst = 0;
  relative = 0;

  /**
   * Every element within `allowed` of what is expected; throws a SaettaError that names the first
   * that is not.
   */
  compare(what: string, actual: ArrayLike<number>, expected: ArrayLike<number>, allowed: (i: number) => number): void {
    let difference = 0;
    let largest = 0;
    for (let i = 0; i < expected.length; i++) {
      const off = Object.is(actual[i], expected[i]) ? 0 : Math.abs(actual[i] - expected[i]);
      const bound = allowed(i);
      if (!(off <= bound))
        throw new SaettaError(
          `${what}[${i}] is ${actual[i]}, the reference has ${expected[i]}, rounding allows ${bound}`,
        );
      if (off > 0) this.worst = Math.max(this.worst, off / bound);
      difference = Math.max(difference, off);
      largest = Math.max(largest, Math.abs(expected[i]));
    }
    if (difference > 0) this.relative = Math.max(this.relative, difference / largest);
  }

  same(what: string, actual: ArrayLike<number>, expected: ArrayLike<number>): void {
    this.compare(what, actual, expected, () => 0);
  }
}

/**
 * What the inputs of a setup promise: `exact` numbers sum without rounding in any order, so
 * selection must be equal bit for bit, ties too.
 */
export interface Options {
  readonly exact?: boolean;
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
      await new Comparison(tally, e, r, options.exact ?? false).step();
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
  readonly #exact: boolean;
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
    this.#exact = exact && this.#narrow === 0;
    this.#unit = SLACK * ROUNDING[e.engine.real] + this.#narrow;
    this.#stored = e.engine.numbers === "f64" ? 0 : SLACK * ROUNDING[e.engine.numbers];
  }

  async step(): Promise<void> {
    await this.#both((w) => w.load());
    this.#load();
    await this.#sync("x");
    await this.#both((w) => w.encode());
    this.#encode();
    await this.#sync(
      "sums",
      "fired",
      ...this.#r.branches.flatMap((branch) => [`${branch}.latent`, `${branch}.value`, `${branch}.grad`]),
    );
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
    const magnitudes = gradientMagnitudes(this.#r, namedSums(this.#r.get("sums")));
    await this.#both((w) => w.paramGrad());
    for (const name of CORE_PARAMS) this.#near(`g.${name}`, (i) => magnitudes[name][i]);
    await this.#sync(...CORE_PARAMS.map((name) => `g.${name}`));
    const projected = projectedMagnitudes(this.#r.get("decoder"), magnitudes, this.#d);
    await this.#both((w) => w.norm());
    this.#norm(projected);
    await this.#sync("sq");
    this.#tally.same("bad", this.#e.get("bad"), this.#r.get("bad"));
    await this.#checkUpdate(projected);
    await this.#sync(
      "age",
      "counters",
      ...["", "m.", "v.", "ema."].flatMap((prefix) => CORE_PARAMS.map((name) => `${prefix}${name}`)),
    );
  }

  get #d(): number {
    return this.#r.setup.dims.dIn;
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
    for (const name of ["sums", "fired", "bad", "sq"]) this.#tally.same(name, this.#e.get(name), this.#r.get(name));
  }

  #encode(): void {
    for (const name of ["sums", "bad"]) this.#tally.same(`encode: ${name}`, this.#e.get(name), this.#r.get(name));
    this.#tally.same(
      "encode: fired",
      this.#e.get("fired"),
      this.#narrow === 0 ? this.#r.get("fired") : this.#firings(),
    );
    const { pre, magnitude } = preActivations(this.#r.weights(), this.#r.get("x"));
    for (const branch of this.#r.branches) {
      if (this.#exact) {
        for (const name of [`${branch}.latent`, `${branch}.value`])
          this.#tally.same(name, this.#e.get(name), this.#r.get(name));
      }
      if (this.#narrow === 0) this.#selection(branch, magnitude);
      else this.#nearSelection(branch, pre, magnitude);
    }
    this.#unusedGradients();
  }

  /**
   * The same latents in each row as the reference, in the order of the engine's own values, each
   * value near the reference's.
   */
  #selection(branch: BranchName, magnitude: Float64Array): void {
    const { n } = this.#r.setup.dims;
    const slots = this.#r.setup[branch]!.slots;
    const [latent, value] = [this.#e.get(`${branch}.latent`), this.#e.get(`${branch}.value`)];
    const [latents, values] = [this.#r.get(`${branch}.latent`), this.#r.get(`${branch}.value`)];
    const expected = new Float64Array(value.length);
    for (let first = 0; first < latent.length; first += slots) {
      const row = first / slots;
      const left = new Map<number, number>();
      for (let slot = first; slot < first + slots; slot++)
        if (latents[slot] !== NONE) left.set(latents[slot], values[slot]);
      const on = left.size;
      for (let slot = first; slot < first + on; slot++) {
        const where = `${branch} codes, row ${row}, slot ${slot - first}`;
        const j = latent[slot];
        const reference = left.get(j);
        if (reference === undefined)
          throw new SaettaError(`${where}: latent ${j}, which the reference has not selected or which is here twice`);
        left.delete(j);
        expected[slot] = reference;
        const before = slot - 1;
        const ordered =
          slot === first || value[slot] < value[before] || (value[slot] === value[before] && j > latent[before]);
        if (!ordered)
          throw new SaettaError(
            `${where}: latent ${j} with ${value[slot]} after latent ${latent[before]} with ${value[before]}`,
          );
      }
      const surplus = latent.subarray(first + on, first + slots).findIndex((j) => j !== NONE);
      if (surplus !== -1)
        throw new SaettaError(
          `${branch} codes, row ${row}: latent ${latent[first + on + surplus]} is on, the reference has ${on} others`,
        );
    }
    this.#tally.compare(`${branch}.value`, value, expected, (slot) =>
      latent[slot] === NONE ? 0 : this.#unit * magnitude[Math.floor(slot / slots) * n + latent[slot]],
    );
  }

  /** What the engine's own codes fire. */
  #firings(): Float64Array {
    const fired = new Float64Array(this.#r.setup.dims.n);
    const [latent, value] = [this.#e.get("live.latent"), this.#e.get("live.value")];
    for (let slot = 0; slot < latent.length; slot++)
      if (value[slot] > this.#r.setup.hyper.firedAbove) fired[latent[slot]] = 1;
    return fired;
  }

  /**
   * The same for products in a narrower type: latents may change places with the reference's where
   * their values are that near.
   */
  #nearSelection(branch: BranchName, pre: Float64Array, magnitude: Float64Array): void {
    const { n } = this.#r.setup.dims;
    const slots = this.#r.setup[branch]!.slots;
    const [latent, value] = [this.#e.get(`${branch}.latent`), this.#e.get(`${branch}.value`)];
    const { age, hyper } = { age: this.#r.get("age"), hyper: this.#r.setup.hyper };
    const expected = new Float64Array(value.length);
    for (let first = 0; first < latent.length; first += slots) {
      const row = first / slots;
      const candidates = Array.from({ length: n }, (_, j) => j).filter(
        (j) => branch === "live" || maths.isDead(age[j], hyper.deadAfter),
      );
      const near = (j: number) => this.#unit * magnitude[row * n + j];
      const chosen = latent.subarray(first, first + slots).filter((j) => j !== NONE);
      const where = `${branch} codes, row ${row}`;
      if (new Set(chosen).size < chosen.length || !chosen.every((j) => candidates.includes(j)))
        throw new SaettaError(`${where}: a latent is here twice or cannot be selected`);
      // Whoever is left out is at most as high as the lowest that is on, or as 0 where there is
      // room, give or take.
      const lowest = chosen.length < slots ? 0 : value[first + slots - 1];
      const left = candidates.find((j) => !chosen.includes(j) && pre[row * n + j] > lowest + near(j));
      if (left !== undefined)
        throw new SaettaError(`${where}: latent ${left} with ${pre[row * n + left]} is left out, ${lowest} is on`);
      chosen.forEach((j, i) => {
        const slot = first + i;
        expected[slot] = pre[row * n + j];
        const ordered =
          i === 0 || value[slot] < value[slot - 1] || (value[slot] === value[slot - 1] && j > chosen[i - 1]);
        if (!ordered || !(value[slot] > 0) || latent[slot] !== j)
          throw new SaettaError(`${where}: slot ${i} is out of order`);
      });
    }
    this.#tally.compare(`${branch}.value`, value, expected, (slot) =>
      latent[slot] === NONE ? 0 : this.#unit * magnitude[Math.floor(slot / slots) * n + latent[slot]],
    );
  }

  #unusedGradients(): void {
    for (const branch of this.#r.branches) {
      const [latent, grad] = [this.#e.get(`${branch}.latent`), this.#e.get(`${branch}.grad`)];
      const slot = latent.findIndex((j, s) => j === NONE && grad[s] !== 0);
      if (slot !== -1) throw new SaettaError(`${branch}.grad[${slot}] is ${grad[slot]} in an unused slot`);
    }
  }

  #decode(branch: BranchName): void {
    const magnitude = this.#magnitudeOfSum(branch);
    this.#near(`${branch}.err`, (i) => magnitude[i]);
  }

  #magnitudeOfSum(branch: BranchName): Float64Array {
    const magnitude = new Float64Array(this.#r.get(`${branch}.err`).length);
    maths.decode(absolute(this.#r.get("decoder")), absolutePairs(this.#r, branch), magnitude);
    return magnitude;
  }

  #residual(branch: BranchName): void {
    const [x, b, liveErr, err] = [
      this.#r.get("x"),
      this.#r.get("preBias"),
      this.#r.get("live.err"),
      this.#e.get(`${branch}.err`),
    ];
    const magnitude = this.#magnitudeOfSum(branch);
    this.#near(
      `${branch}.err`,
      (i) => magnitude[i] + (branch === "live" ? Math.abs(x[i]) + Math.abs(b[i % this.#d]) : Math.abs(liveErr[i])),
    );
    const [actual, expected] = [this.#e.get("sums"), this.#r.get("sums")];
    const own = namedSums(expected.slice());
    const tolerance = new Float64Array(expected.length);
    const allow = (name: (typeof SUMS)[number], amount: number) => {
      tolerance[SUMS.indexOf(name)] = this.#unit * amount;
    };
    // A sum of squares of numbers each off by t is off by up to 2 |number| t; and the number's own
    // square is rounded.
    const slackOf = (i: number) => magnitude[i] + Math.abs(x[i]) + Math.abs(b[i % this.#d]) + Math.abs(liveErr[i]);
    const squaresSlack = err.reduce((sum, value, i) => sum + 2 * Math.abs(value) * slackOf(i) + value * value, 0);
    if (branch === "dead") allow("auxErr2", squaresSlack);
    else {
      allow("err2", squaresSlack);
      allow("x2", own.x2);
      allow("centred2", own.centred2);
      const distance = centred(x, b);
      for (let i = 0; i < err.length; i++) {
        tolerance[SUMS.length + (i % this.#d)] += this.#unit * slackOf(i);
        tolerance[SUMS.length + this.#d + (i % this.#d)] += this.#unit * distance[i];
      }
    }
    this.#tally.compare("sums", actual, expected, (i) => tolerance[i] + this.#stored * Math.abs(expected[i]));
  }

  #codeGrad(branch: BranchName): void {
    const magnitudes = {
      ...absolutePairs(this.#r, branch),
      grad: new Float64Array(this.#r.get(`${branch}.grad`).length),
    };
    maths.codeGradients(absolute(this.#r.get("decoder")), magnitudes, absolute(this.#r.get(`${branch}.err`)));
    this.#near(`${branch}.grad`, (i) => magnitudes.grad[i]);
    this.#unusedGradients();
  }

  #norm(projected: maths.Weights): void {
    const gradient = this.#projectedGradient();
    let slack = 0;
    for (const name of CORE_PARAMS) {
      gradient[name].forEach((g, i) => {
        const off = this.#unit * projected[name][i];
        slack += 2 * Math.abs(g) * off + off * off;
      });
    }
    const sq = this.#r.get("sq");
    this.#tally.compare("sq", this.#e.get("sq"), sq, () => slack + (this.#unit + this.#stored) * sq[0]);
  }

  #projectedGradient(): maths.Weights {
    const gradient = this.#r.weights("g.");
    const decoder = gradient.decoder.slice();
    maths.project(this.#r.get("decoder"), decoder, this.#d);
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
    const t = this.#r.get("counters")[COUNTERS.indexOf("adam")];
    for (const name of CORE_PARAMS) {
      const g = (i: number) => factor * projected[name][i];
      this.#near(`m.${name}`, (i) => hyper.beta1 * Math.abs(m[name][i]) + (1 - hyper.beta1) * g(i));
      this.#near(`v.${name}`, (i) => {
        const doubled = 2 * factor * Math.abs(gradient[name][i]) * g(i) + this.#unit * g(i) ** 2;
        return hyper.beta2 * v[name][i] + (1 - hyper.beta2) * doubled + TINY / this.#unit;
      });
      const move = (guarded: GuardedStep) => {
        const [mNow, vNow] = [guarded.get(`m.${name}`), guarded.get(`v.${name}`)];
        const root = (i: number) => Math.sqrt(vNow[i] / (1 - hyper.beta2 ** t)) + hyper.eps;
        return mNow.map((value, i) => (hyper.lr * (value / (1 - hyper.beta1 ** t))) / root(i));
      };
      const [moved, expected] = [move(this.#e), move(this.#r)];
      const off = moved.map(
        (value, i) => this.#unit * (Math.abs(w[name][i]) + Math.abs(value)) + Math.abs(value - expected[i]),
      );
      const allowed = name === "decoder" ? this.#afterUnitNorm(w.decoder, expected, off) : off;
      this.#tally.compare(name, this.#e.get(name), this.#r.get(name), (i) => allowed[i]);
      if (ema !== undefined) {
        const now = this.#e.get(name);
        const average = ema[name].slice();
        if (hyper.emaDecay > 0) maths.average(average, now, hyper.emaDecay);
        const magnitude = (i: number) => Math.abs(ema[name][i]) + Math.abs(now[i]);
        this.#tally.compare(`ema.${name}`, this.#e.get(`ema.${name}`), average, (i) => this.#unit * magnitude(i));
      }
    }
  }

  /**
   * What an error `off` of each element becomes when its row [d] is brought to length 1; a row
   * without a length is drawn anew.
   */
  #afterUnitNorm(before: Float64Array, moved: Float64Array, off: Float64Array): Float64Array {
    const now = this.#r.get("decoder");
    const allowed = new Float64Array(off.length);
    for (let start = 0; start < off.length; start += this.#d) {
      const slice = [start, start + this.#d] as const;
      const length = Math.sqrt(maths.squares(before.subarray(...slice).map((value, i) => value - moved[start + i])));
      const offLength = Math.sqrt(maths.squares(off.subarray(...slice)));
      for (let i = start; i < start + this.#d; i++) {
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
