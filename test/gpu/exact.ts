/**
 * Codes in float32 on a card have the bits of one chain of fused multiply-adds, as on the cpu
 * engine, although a product in f16 decides what is computed (kernels/screen.cu).
 */

import { type Draw, draw } from "../../src/engine/conformance-draw.ts";
import { GuardedStep, type Setup } from "../../src/engine/conformance-guarded-step.ts";
import { type Engine, NONE } from "../../src/engine/engine.ts";
import { Rng } from "../../src/util/rng.ts";
import type { Check } from "./checks.ts";

const bits = new BigInt64Array(1);
const number = new Float64Array(bits.buffer);

/** a * b + c of floats, rounded once. */
function multiplyAdd(a: number, b: number, c: number): number {
  // The product is exact. What the sum loses makes it odd, so that it rounds as the exact sum does.
  const product = a * b;
  const sum = product + c;
  const part = sum - product;
  const lost = product - (sum - part) + (c - part);
  if (lost === 0) return Math.fround(sum);
  number[0] = sum;
  if ((bits[0]! & 1n) === 0n) bits[0] = bits[0]! + (lost > 0 === sum > 0 ? 1n : -1n);
  return Math.fround(number[0]);
}

/** Encoder rows whose norms differ by as much as weights of others do, some of them equal. */
function uneven({ params, dims: { dIn: d } }: Setup): void {
  const rng = new Rng(5, d);
  const { encoder } = params;
  const n = encoder.length / d;
  for (let j = 0; j < n; j++) {
    const scale = j % 50 === 0 ? 40 : j % 7 === 0 ? 2 ** -rng.below(30) : 1;
    for (let i = 0; i < d; i++) encoder[j * d + i] = Math.fround(encoder[j * d + i]! * scale);
  }
  for (let j = n >> 1; j < (n >> 1) + 20; j++) encoder.copyWithin(j * d, 0, d);
}

/** All latents are the same but for a few: no screen tells them apart. */
function equal({ params, dims: { dIn: d, n } }: Setup): void {
  const { encoder, latentBias } = params;
  for (let j = 0; j < n; j++) if (j % 400 !== 3) encoder.copyWithin(j * d, 0, d);
  latentBias.fill(1.5);
}

const PREPARED: Readonly<Record<string, (setup: Setup) => void>> = {
  random: () => undefined,
  "uneven rows": uneven,
  "equal rows": equal,
};

const DRAWS: Readonly<Record<string, Draw>> = {
  "top k": { d: 64, n: 3000, k: 16, B: 70 },
  "top k, odd widths": { d: 37, n: 1501, k: 40, B: 33 },
  "top k of few latents": { d: 5, n: 9, k: 9, B: 40 },
  "top k of more latents than a tile": { d: 8, n: 40_000, k: 300, B: 3 },
  batchtopk: { d: 64, n: 2000, k: 9.5, B: 40, rule: "batchtopk", slots: 60 },
  thresholds: { d: 64, n: 3000, k: 16, B: 70, rule: "threshold" },
  "thresholds with a band, odd widths": {
    d: 37,
    n: 1501,
    k: 16,
    B: 33,
    rule: "threshold",
    band: 1501,
    hyper: { bandwidth: 0.4 },
  },
  "one threshold": { d: 64, n: 2500, k: 16, B: 40, rule: "cut" },
};

/** Pre-activations of row b in f32. */
function preActivationsOf(step: GuardedStep, b: number): Float32Array {
  const { dIn: d, n } = step.setup.dims;
  const { encoder, latentBias, preBias } = step.weights();
  const x = step
    .get("x")
    .subarray(b * d, (b + 1) * d)
    .map((value, i) => Math.fround(value - preBias[i]!));
  return Float32Array.from({ length: n }, (_, j) => {
    let sum = 0;
    for (let i = 0; i < d; i++) sum = multiplyAdd(encoder[j * d + i]!, x[i]!, sum);
    return Math.fround(sum + latentBias[j]!);
  });
}

/** The latents that the rule takes of a row, in the order of their codes. */
function selected(step: GuardedStep, name: "live" | "band", pre: Float32Array): number[] {
  const { live, hyper } = step.setup;
  const { threshold, cut } = step.weights();
  const all = [...pre.keys()];
  const half = (hyper.bandwidth ?? 0) / 2;
  if (name === "band") return all.filter((j) => Math.abs(Math.fround(pre[j]! - threshold![j]!)) < half);
  if (live.rule.kind === "threshold") {
    const of = live.rule.param === "cut" ? () => cut![0]! : (j: number) => threshold![j]!;
    return all.filter((j) => pre[j]! > 0 && pre[j]! > of(j));
  }
  const on = all.filter((j) => pre[j]! > 0).sort((i, j) => pre[j]! - pre[i]! || i - j);
  return on.slice(0, live.slots);
}

async function check(engine: Engine, name: string, o: Draw, prepare: (setup: Setup) => void): Promise<number> {
  const setup = draw(o);
  prepare(setup);
  const step = await GuardedStep.create(engine, setup);
  await step.load();
  await step.encode();
  let codes = 0;
  for (const side of ["live", ...(o.band ? (["band"] as const) : [])] as const) {
    const [latent, value] = [step.get(`${side}.latent`), step.get(`${side}.value`)];
    const slots = latent.length / o.B;
    for (let b = 0; b < o.B; b++) {
      const pre = preActivationsOf(step, b);
      const right = selected(step, side, pre);
      codes += right.length;
      for (let slot = 0; slot < slots; slot++) {
        const j = right[slot];
        const at = b * slots + slot;
        if (latent[at] !== (j ?? NONE) || value[at] !== (j === undefined ? 0 : pre[j]))
          throw new Error(
            `${name}: ${side} slot ${slot} of row ${b} is ${latent[at]} ${value[at]}, not ${j} ${pre[j ?? 0]}`,
          );
      }
    }
  }
  step.free();
  return codes;
}

export const EXACT_CHECKS: readonly Check[] = Object.entries(DRAWS).flatMap(([name, o]) =>
  Object.entries(PREPARED).map(([how, prepare]) => ({
    name: `codes have the bits of f32: ${name}, ${how}`,
    run: async (make, dtype) => {
      if (dtype !== "f32") return "only in f32";
      await using engine = await make({ dtype });
      return `${await check(engine, name, o, prepare)} codes`;
    },
  })),
);
