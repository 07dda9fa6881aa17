/**
 * The cases of multi-TopK: the wide selection next to the live one, and the gradient of both
 * losses, from the same codes on both engines.
 */

import { autoencoderDims, type Dims, transcoderDims } from "../sae/dims.ts";
import { CORE_PARAMS } from "../sae/params.ts";
import { bytesOf, float32Of, float64Of, uint32Of } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { Rng } from "../util/rng.ts";
import { allocParams, freeParams } from "./allocate.ts";
import { type Case, within } from "./conformance-case.ts";
import { HYPERS } from "./conformance-draw.ts";
import { Tally } from "./conformance-tally.ts";
import type { Codes, Engine, Grads, Hyper, Params, SelectionPlan, Tensor } from "./engine.ts";
import { ForwardPass } from "./forward.ts";
import { ROUNDING, readNumbers } from "./numbers.ts";

interface WideDraw {
  readonly dims: Dims;
  readonly k: number;
  readonly wideK: number;
  readonly B: number;
  readonly hyper?: Partial<Hyper>;
}

/** One step up to its gradients on one engine. */
class WideStep {
  readonly pass: ForwardPass;
  readonly engine: Engine;
  readonly #params: Params;
  readonly #raw: Tensor;
  readonly #age: Tensor;
  readonly #g: Grads;

  constructor(engine: Engine, { dims, k, wideK, B, hyper }: WideDraw) {
    this.engine = engine;
    const { dIn, dOut, n, untied } = dims;
    const rng = new Rng(3, dIn, n, k);
    // Small whole numbers, whose pre-activations are exact in every type: many are equal.
    const numbers = (count: number, most = 1) =>
      Float32Array.from({ length: count }, () => rng.below(2 * most + 1) - most);
    const write = (tensor: Tensor, values: Float32Array) =>
      engine.write(tensor, bytesOf(tensor.dtype === "f64" ? Float64Array.from(values) : values));
    this.#params = allocParams(engine, dims, CORE_PARAMS);
    for (const name of CORE_PARAMS) {
      const tensor = this.#params[name];
      const values = numbers(
        tensor.shape.reduce((a, b) => a * b, 1),
        name === "latentBias" ? 3 : 1,
      );
      write(tensor, values);
    }
    this.#age = engine.alloc("u32", [n]);
    engine.write(this.#age, bytesOf(Uint32Array.from({ length: n }, (_, j) => (j % 3 === 0 ? 5000 : 0))));
    const plan = (slots: number, among: SelectionPlan["among"]) => ({
      ...{ rule: { kind: "topk", k: slots } as const, among, slots },
    });
    const target = untied ? ({ kind: "none", factor: 1 } as const) : undefined;
    this.pass = new ForwardPass(engine, {
      ...{ rows: B, dims, live: plan(k, "all"), wide: plan(wideK, "wide"), target },
    });
    const width = untied ? dIn + dOut : dIn;
    this.#raw = engine.alloc("f32", [B, width]);
    engine.write(this.#raw, bytesOf(numbers(B * width)));
    this.#g = engine.grads({ dims, rows: B, selections: this.pass.plans(), dense: true });
    this.pass.prepare({ ...HYPERS, rows: B, wideCoef: 0.25, ...hyper });
  }

  select(): void {
    this.pass.encode(this.#params, this.#raw, this.#age);
  }

  /** The rest of the step, up to its gradients. */
  rest(): void {
    const { engine, pass } = this;
    const { live, wide, wideStep, step: t, x } = pass;
    for (const branch of [live, wide!]) {
      pass.decode(this.#params, branch);
      pass.residual(this.#params, branch);
      engine.codeGrad(this.#params, branch, t);
    }
    const ofWide = { branch: wide!, sums: wideStep!.sums };
    engine.paramGrad({ p: this.#params, x, t, live, wide: ofWide, age: this.#age, g: this.#g });
  }

  async codes(of: Codes): Promise<{ readonly latent: Uint32Array; readonly value: Float64Array }> {
    const { latent, value } = this.engine.pairs(of);
    return { latent: uint32Of(await this.engine.read(latent)), value: await this.#reals(value) };
  }

  async take(of: Codes, from: { readonly latent: Uint32Array; readonly value: Float64Array }): Promise<void> {
    const { latent, value } = this.engine.pairs(of);
    this.engine.write(latent, bytesOf(from.latent));
    this.engine.write(value, bytesOf(value.dtype === "f64" ? from.value : Float32Array.from(from.value)));
  }

  async found(): Promise<ReadonlyMap<string, Float64Array>> {
    const { step, wideStep } = this.pass;
    const gradients = CORE_PARAMS.map(async (name) => [`g.${name}`, await this.#reals(this.#g[name]!)] as const);
    return new Map([
      ["sums", await readNumbers(this.engine, step.sums)],
      ["sums of the wide branch", await readNumbers(this.engine, wideStep!.sums)],
      ...(await Promise.all(gradients)),
    ]);
  }

  async fired(): Promise<Uint32Array> {
    return uint32Of(await this.engine.read(this.pass.step.fired));
  }

  free(): void {
    this.pass.close();
    freeParams(this.engine, this.#params);
    for (const it of [this.#raw, this.#age, this.#g]) this.engine.free(it);
  }

  async #reals(t: Tensor): Promise<Float64Array> {
    const bytes = await this.engine.read(t);
    return t.dtype === "f64" ? float64Of(bytes) : Float64Array.from(float32Of(bytes));
  }
}

function wide(name: string, draws: readonly WideDraw[]): Case {
  return {
    name: `multi-TopK: ${name}`,
    run: async (engine, reference) => {
      let worst = 0;
      for (const o of draws) {
        const { dims, k, wideK } = o;
        const plans = [
          { rule: { kind: "topk", k } as const, among: "all" as const, slots: k },
          { rule: { kind: "topk", k: wideK } as const, among: "wide" as const, slots: wideK },
        ];
        const why = engine.refuses(dims, plans);
        if (why !== undefined) return { skipped: why };
        await within(JSON.stringify(o), async () => {
          const [own, expected] = [new WideStep(engine, o), new WideStep(reference, o)];
          worst = Math.max(worst, await compare(own, expected));
          own.free();
          expected.free();
        });
      }
      return { worst };
    },
  };
}

/** The largest difference, as a part of what rounding allows. */
async function compare(own: WideStep, expected: WideStep): Promise<number> {
  for (const step of [own, expected]) step.select();
  new Tally().same("fired", Float64Array.from(await own.fired()), await expected.fired());
  for (const name of ["live", "wide"] as const) {
    const codes = await expected.codes(expected.pass[name]!.codes);
    const found = await own.codes(own.pass[name]!.codes);
    new Tally().same(`${name}.latent`, Float64Array.from(found.latent), codes.latent);
    new Tally().same(`${name}.value`, found.value, codes.value);
  }
  for (const step of [own, expected]) step.rest();
  const { engine } = own;
  // Sums of the step, such as a loss's scale, are rounded as the engine stores its numbers.
  const rounding = Math.max(engine.rounding ?? ROUNDING[engine.real], ROUNDING[engine.numbers]);
  const [found, truth] = [await own.found(), await expected.found()];
  let worst = 0;
  for (const [name, values] of truth) {
    const off = values.map((value, i) => value - found.get(name)![i]!);
    const length = (of: Float64Array) => Math.sqrt(of.reduce((sum, each) => sum + each * each, 0));
    const part = length(off) === 0 ? 0 : length(off) / length(values) / (64 * rounding);
    if (!(part <= 1)) throw new SaettaError(`${name} is off by ${part * 64} roundings`);
    worst = Math.max(worst, part);
  }
  return worst;
}

export const WIDE_CASES: readonly Case[] = [
  wide("sizes around SIMD widths", [
    { dims: autoencoderDims(1, 4), k: 1, wideK: 4, B: 1 },
    { dims: autoencoderDims(13, 37), k: 5, wideK: 20, B: 11 },
    { dims: autoencoderDims(16, 64), k: 16, wideK: 64, B: 33 },
    { dims: autoencoderDims(65, 130), k: 3, wideK: 12, B: 50 },
  ]),
  wide("of a transcoder", [{ dims: transcoderDims(17, 60, 9), k: 4, wideK: 16, B: 40 }]),
  wide("k annealing cuts the live codes alone", [
    { dims: autoencoderDims(13, 37), k: 9, wideK: 12, B: 11, hyper: { rowK: 3 } },
    { dims: autoencoderDims(13, 37), k: 12, wideK: 8, B: 11 },
  ]),
  wide("few latents in many rows", [{ dims: autoencoderDims(9, 12), k: 2, wideK: 8, B: 1500 }]),
  wide("weight 0", [{ dims: autoencoderDims(13, 37), k: 5, wideK: 20, B: 11, hyper: { wideCoef: 0 } }]),
];
