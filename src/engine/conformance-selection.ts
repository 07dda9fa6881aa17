/**
 * What encode and reconcile have selected on an engine, compared with the reference: the codes in
 * the order of their rule, what fired, t.cut and t.active, and whether a row was full.
 */

import * as maths from "../sae/math.ts";
import { SaettaError } from "../util/errors.ts";
import { preActivations } from "./conformance-bounds.ts";
import type { CodesName, GuardedStep } from "./conformance-guarded-step.ts";
import type { Tally } from "./conformance-tally.ts";
import { NONE, type SelectionPlan } from "./engine.ts";

export interface Allowed {
  /** The numbers sum without rounding, so codes must be equal bit for bit. */
  readonly exact: boolean;
  /** What narrower products add (conformance-step.ts, Comparison). */
  readonly narrow: number;
  /** What a value may be off by, as a part of the sum of absolute values behind it. */
  readonly unit: number;
}

type Pre = ReturnType<typeof preActivations>;

export class SelectionComparison {
  readonly #tally: Tally;
  readonly #e: GuardedStep;
  readonly #r: GuardedStep;
  readonly #allowed: Allowed;

  constructor(tally: Tally, e: GuardedStep, r: GuardedStep, allowed: Allowed) {
    this.#tally = tally;
    this.#e = e;
    this.#r = r;
    this.#allowed = allowed;
  }

  encode(): void {
    const { exact, narrow } = this.#allowed;
    for (const name of ["sums", "bad"]) this.#same(name, "encode: ");
    const pre = preActivations(this.#r.weights(), this.#r.get("x"));
    this.#active(pre);
    if (this.#r.isFull) {
      this.validCodes();
      return;
    }
    // What of a batch fires is only known once it is cut.
    if (this.#r.setup.live.rule.kind !== "batchtopk")
      this.#tally.same("encode: fired", this.#e.get("fired"), narrow === 0 ? this.#r.get("fired") : this.#firings());
    for (const [name, plan] of this.#r.selections) {
      if (exact) for (const part of ["latent", "value"]) this.#same(`${name}.${part}`);
      if (narrow === 0) this.#selection(name, plan, pre);
      else this.#nearSelection(name, plan, pre);
    }
    this.unusedGradients();
  }

  /** Both had the same codes before, so that nothing is rounded. */
  reconcile(name: CodesName): void {
    this.#same("bad", "reconcile: ");
    if (this.#r.isFull) {
      this.validCodes();
      return;
    }
    for (const each of ["latent", "value", "grad"].map((part) => `${name}.${part}`)) this.#same(each, "reconcile: ");
    for (const each of ["fired", "cut of the step"]) this.#same(each, "reconcile: ");
  }

  unusedGradients(): void {
    for (const [name] of this.#r.selections) {
      const [latent, grad] = [this.#e.get(`${name}.latent`), this.#e.get(`${name}.grad`)];
      const slot = latent.findIndex((j, s) => j === NONE && grad[s] !== 0);
      if (slot !== -1) throw new SaettaError(`${name}.grad[${slot}] is ${grad[slot]} in an unused slot`);
    }
  }

  /** Codes of rows that need more slots are incomplete, but operations may go over them. */
  validCodes(): void {
    const { n } = this.#r.setup.dims;
    for (const [name, { slots }] of this.#r.selections) {
      const latent = this.#e.get(`${name}.latent`);
      const slot = latent.findIndex(
        (j, s) => j !== NONE && (j >= n || (s % slots > 0 && latent[s - 1] === NONE) || isRepeated(latent, s, slots)),
      );
      if (slot !== -1) throw new SaettaError(`${name}.latent[${slot}] of a full step is ${latent[slot]}`);
    }
  }

  #same(name: string, where = ""): void {
    this.#tally.same(`${where}${name}`, this.#e.get(name), this.#r.get(name));
  }

  /** Narrow products may decide otherwise where a value is near its threshold. */
  #active(pre: Pre): void {
    const { threshold } = this.#limits(this.#r.setup.live);
    const { n } = this.#r.setup.dims;
    const isNear = (z: number, e: number) =>
      threshold !== undefined && Math.abs(z - threshold(e % n)) <= this.#allowed.unit * pre.magnitude[e]!;
    const undecided = this.#allowed.narrow === 0 ? 0 : pre.pre.filter(isNear).length;
    this.#tally.compare("active", this.#e.get("active"), this.#r.get("active"), () => undecided);
  }

  /**
   * The same latents in each row as the reference, in the order of the engine's own values or of
   * the latents, each value near the reference's.
   */
  #selection(name: CodesName, { rule, slots }: SelectionPlan, { magnitude }: Pre): void {
    const { n } = this.#r.setup.dims;
    const [latent, value] = [this.#e.get(`${name}.latent`), this.#e.get(`${name}.value`)];
    const [latents, values] = [this.#r.get(`${name}.latent`), this.#r.get(`${name}.value`)];
    const expected = new Float64Array(value.length);
    for (let first = 0; first < latent.length; first += slots) {
      const row = first / slots;
      const left = new Map<number, number>();
      for (let slot = first; slot < first + slots; slot++)
        if (latents[slot] !== NONE) left.set(latents[slot], values[slot]);
      const on = left.size;
      for (let slot = first; slot < first + on; slot++) {
        const where = `${name} codes, row ${row}, slot ${slot - first}`;
        const j = latent[slot];
        const reference = left.get(j);
        if (reference === undefined)
          throw new SaettaError(`${where}: latent ${j}, which the reference has not selected or which is here twice`);
        left.delete(j);
        expected[slot] = reference;
        const before = slot - 1;
        if (slot > first && !isOrdered(rule, latent, value, slot))
          throw new SaettaError(
            `${where}: latent ${j} with ${value[slot]} after latent ${latent[before]} with ${value[before]}`,
          );
      }
      const surplus = latent.subarray(first + on, first + slots).findIndex((j) => j !== NONE);
      if (surplus !== -1)
        throw new SaettaError(
          `${name} codes, row ${row}: latent ${latent[first + on + surplus]} is on, the reference has ${on} others`,
        );
    }
    this.#tally.compare(`${name}.value`, value, expected, (slot) =>
      latent[slot] === NONE ? 0 : this.#allowed.unit * magnitude[Math.floor(slot / slots) * n + latent[slot]],
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
   * What decides whether a latent is selected: how many at most, which may be, and for rules that
   * look at one latent at a time how far it is inside.
   */
  #limits({ rule, among, slots }: SelectionPlan) {
    const { hyper } = this.#r.setup;
    const { threshold, cut } = this.#r.weights();
    const age = this.#r.get("age");
    return {
      most: rule.kind === "topk" && among === "all" ? Math.min(slots, hyper.rowK ?? slots) : slots,
      isCandidate: (j: number) => among === "all" || maths.isDead(age[j], hyper.deadAfter),
      threshold:
        rule.kind === "threshold"
          ? (j: number) => Math.max(0, rule.param === "cut" ? cut![0]! : threshold![j]!)
          : undefined,
      inside:
        rule.kind === "band"
          ? (j: number, z: number) => (hyper.bandwidth ?? 0) / 2 - Math.abs(z - threshold![j]!)
          : undefined,
    };
  }

  /**
   * The same for products in a narrower type: latents may change places with the reference's where
   * their values are that near.
   */
  #nearSelection(name: CodesName, plan: SelectionPlan, { pre, magnitude }: Pre): void {
    const { n } = this.#r.setup.dims;
    const { rule, slots } = plan;
    const { most, isCandidate, threshold, inside = threshold && ((j, z) => z - threshold(j)) } = this.#limits(plan);
    const [latent, value] = [this.#e.get(`${name}.latent`), this.#e.get(`${name}.value`)];
    const expected = new Float64Array(value.length);
    const candidates = Array.from({ length: n }, (_, j) => j).filter(isCandidate);
    for (let first = 0; first < latent.length; first += slots) {
      const row = first / slots;
      const near = (j: number) => this.#allowed.unit * magnitude[row * n + j];
      const chosen = latent.subarray(first, first + slots).filter((j) => j !== NONE);
      const where = `${name} codes, row ${row}`;
      if (chosen.length > most || new Set(chosen).size < chosen.length || !chosen.every((j) => candidates.includes(j)))
        throw new SaettaError(`${where}: a latent is here twice or cannot be selected`);
      // Whoever is left out is at most as high as the lowest that is on, or as 0 where there is
      // room, give or take.
      const lowest = chosen.length < most ? 0 : value[first + most - 1];
      const height = inside ?? ((_: number, z: number) => z - lowest);
      const left = candidates.find((j) => !chosen.includes(j) && height(j, pre[row * n + j]) > near(j));
      if (left !== undefined)
        throw new SaettaError(`${where}: latent ${left} with ${pre[row * n + left]} is left out, ${lowest} is on`);
      chosen.forEach((j, i) => {
        const slot = first + i;
        expected[slot] = pre[row * n + j];
        const ordered = i === 0 || isOrdered(rule, latent, value, slot);
        const selected = inside === undefined ? value[slot] > 0 : inside(j, pre[row * n + j]) >= -near(j);
        if (!ordered || !selected || latent[slot] !== j)
          throw new SaettaError(`${where}: slot ${i} is out of order, or not to be selected`);
      });
    }
    this.#tally.compare(`${name}.value`, value, expected, (slot) =>
      latent[slot] === NONE ? 0 : this.#allowed.unit * magnitude[Math.floor(slot / slots) * n + latent[slot]],
    );
  }
}

/** Whether the pair of the slot may come after the one before it in the order of the rule. */
function isOrdered({ kind }: SelectionPlan["rule"], latent: Float64Array, value: Float64Array, slot: number): boolean {
  const ascends = latent[slot] > latent[slot - 1];
  if (kind === "threshold" || kind === "band") return ascends;
  return value[slot] < value[slot - 1] || (value[slot] === value[slot - 1] && ascends);
}

function isRepeated(latent: Float64Array, slot: number, slots: number): boolean {
  return latent.subarray(slot - (slot % slots), slot).includes(latent[slot]);
}
