import { describe, expect, it } from "vitest";
import { z } from "zod";
import { UsageError } from "../../util/errors.ts";
import { descriptionJson, parseDescription } from "../description.ts";
import { autoencoderDims } from "../dims.ts";
import { PENALTIES } from "../math.ts";
import type { StepNumbers, StepOf } from "./architecture.ts";
import {
  ARCHITECTURE_DEFAULTS,
  type ArchitectureName,
  type ArchitectureSpec,
  architectureNamed,
  architectureNames,
  paramsOf,
  rulesOf,
} from "./index.ts";

type Options = Readonly<Record<string, unknown>>;

/** The architecture's own options over its defaults. */
function optionsOf(name: ArchitectureName, asked: Options): Options {
  return { ...architectureNamed(name).defaults, ...asked };
}

function specOf(name: ArchitectureName, asked: Options = {}, latents = 48): ArchitectureSpec {
  return architectureNamed(name).spec(optionsOf(name, asked), latents);
}

function numbersAt(name: ArchitectureName, asked: Options, at: Partial<StepOf> = {}): StepNumbers {
  const architecture = architectureNamed(name);
  const step = { step: 0, steps: 100, rows: 10, ...at };
  return {
    ...architecture.hyper?.(optionsOf(name, asked), specOf(name, asked)),
    ...architecture.stepHyper?.(optionsOf(name, asked), step),
  };
}

function refuses(name: ArchitectureName, asked: Options, message: string, latents = 48): void {
  const refused = () => specOf(name, asked, latents);
  expect(refused, JSON.stringify(asked)).toThrow(UsageError);
  expect(refused).toThrow(message);
}

/** Whether the flag's value is read at all. */
function reads(name: ArchitectureName, option: string, value: unknown): boolean {
  return architectureNamed(name).options[option]!.safeParse(value).success;
}

describe("every architecture", () => {
  it.each(architectureNames())("%s has defaults that its options allow, and parameters for its rules", (name) => {
    const { options, defaults } = architectureNamed(name);
    for (const [option, value] of Object.entries(defaults)) {
      expect(reads(name, option, value), option).toBe(true);
      expect(Object.hasOwn(ARCHITECTURE_DEFAULTS, option)).toBe(true);
    }
    const spec = specOf(name);
    const { live, inference } = rulesOf(spec);
    for (const rule of [live, inference]) if (rule.kind === "threshold") expect(paramsOf(spec)).toContain(rule.param);
    expect(z.object(options).partial().safeParse({}).success).toBe(true);
  });

  it.each<[ArchitectureName, Options]>([
    ["topk", { k: 3, auxk: 5 }],
    ["batchtopk", { k: 3.75, auxk: 5 }],
    ["matryoshka", { k: 3.75, auxk: 5, prefixes: [4, 20], prefixWeights: [1, 2, 5] }],
    ["matryoshka", { k: 3, auxk: 0, prefixes: [0.25, 1], prefixSelection: "topk" }],
    ["jumprelu", { targetL0: 7.5 }],
  ])("%s is read from cfg.json as it was written: %j", (name, asked) => {
    const spec = specOf(name, asked);
    const saetta = { version: "0", engine: "reference", normalization: "none" } as const;
    const written = descriptionJson({ dims: autoencoderDims(4, 48), spec, saetta });
    expect(parseDescription(JSON.parse(JSON.stringify(written)), "cfg.json").spec).toEqual(spec);
  });
});

describe("cfg.json", () => {
  const read = (name: ArchitectureName, asked: Options, change: Options, own: Options = {}) => {
    const saetta = { version: "0", engine: "reference", normalization: "none" } as const;
    const cfg = descriptionJson({ dims: autoencoderDims(4, 48), spec: specOf(name, asked), saetta });
    const changed = { ...cfg, saetta: { ...Object(cfg.saetta), ...own }, ...change };
    return () => parseDescription(JSON.parse(JSON.stringify(changed)), "cfg.json");
  };

  it.each<[Options, string]>([
    [{ prefixes: undefined }, '"prefixes" must be a list of numbers, but is missing'],
    [{ prefixes: [] }, '"prefixes" must ascend from 1 up, but are []'],
    [{ prefixes: [6, 6, 48] }, '"prefixes" must ascend from 1 up, but are [6,6,48]'],
    [{ prefixes: [0, 48] }, '"prefixes" must ascend from 1 up, but are [0,48]'],
    [{ prefixes: [6.5, 48] }, '"prefixes" must be a list of whole numbers, but is [6.5,48]'],
    [{ prefixes: [6, 24] }, 'the last of "prefixes" is 24, not all latents'],
    [{ prefix_weights: [1] }, '"prefix_weights" must be above 0, one for each prefix'],
    [{ prefix_weights: [1, 0] }, '"prefix_weights" must be above 0, one for each prefix'],
    [{ prefix_weights: "even" }, '"prefix_weights" must be a list of numbers, but is "even"'],
    [{ prefix_selection: "groupmax" }, 'prefix_selection "groupmax" is unknown'],
    [{ prefix_selection: "topk" }, '"k" must be a whole number of at least 1, but is 3.5'],
  ])("of matryoshka with %j is refused", (own, message) => {
    expect(read("matryoshka", { k: 3.5, prefixes: [6, 48] }, {}, own)).toThrow(`cfg.json: ${message}`);
  });

  it("is refused without what only Saetta writes, and with a k of 0", () => {
    const matryoshka = { k: 3.5, prefixes: [6, 48] };
    expect(read("matryoshka", matryoshka, { saetta: undefined })).toThrow('cfg.json: "saetta" is not a JSON object');
    for (const [name, asked] of [
      ["matryoshka", matryoshka],
      ["batchtopk", {}],
    ] as const)
      expect(read(name, asked, { k: 0 })).toThrow('cfg.json: "k" must be above 0, but is 0');
  });
});

describe("topk", () => {
  it("keeps k per row, and with annealing as many as k is rounded to", () => {
    expect(specOf("topk", { k: 3, auxk: 0 })).toEqual({ architecture: "topk", k: 3, auxk: 0 });
    expect(rulesOf(specOf("topk", { k: 3, auxk: 0 })).dead).toBeUndefined();
    const annealed = { k: 3, kAnneal: "10:4" };
    const { live, inference } = rulesOf(specOf("topk", annealed));
    expect([live, inference]).toEqual([
      { kind: "topk", k: 10 },
      { kind: "topk", k: 3 },
    ]);
    expect([0, 1, 2, 3, 4, 99].map((step) => numbersAt("topk", annealed, { step }).rowK)).toEqual([10, 8, 7, 5, 3, 3]);
    expect(numbersAt("topk", { k: 3 }).rowK).toBe(3);
  });

  it("selects 4 k more for multi-TopK, at most all", () => {
    const multi = { k: 3, auxk: 0, multiTopk: 0.125 };
    expect(rulesOf(specOf("topk", multi))).toMatchObject({
      ...{ live: { kind: "topk", k: 3 }, wide: { kind: "topk", k: 12 }, inference: { kind: "topk", k: 3 } },
    });
    expect(rulesOf(specOf("topk", { ...multi, k: 13 })).wide).toEqual({ kind: "topk", k: 48 });
    expect(rulesOf(specOf("topk", { ...multi, kAnneal: "9:5" })).wide).toEqual({ kind: "topk", k: 12 });
    expect(rulesOf(specOf("topk", { k: 3, auxk: 0 })).wide).toBeUndefined();
    expect(numbersAt("topk", multi).wideCoef).toBe(0.125);
    expect(numbersAt("topk", { k: 3, auxk: 0 }).wideCoef).toBe(0);
    refuses("topk", { ...multi, auxk: 5 }, "--multi-topk and --auxk 5 exclude each other; leave out one of them");
    refuses("topk", { ...multi, skip: true }, "--multi-topk and --skip exclude each other; leave out one of them");
    expect(reads("topk", "multiTopk", 0)).toBe(false);
  });

  it("has slots for a k that starts between whole numbers", () => {
    expect(rulesOf(specOf("topk", { k: 3, kAnneal: "7.5:10" })).live).toEqual({ kind: "topk", k: 8 });
  });

  it("refuses what cannot be", () => {
    refuses("topk", { k: 3.5 }, "--k 3.5 is not a whole number; round it, or use --architecture batchtopk");
    refuses("topk", { k: 49 }, "--k 49 is more than the 48 latents; lower --k or raise --latents");
    refuses("topk", { k: 5, kAnneal: "4:10" }, "--k-anneal 4:10 begins below --k 5; begin above it");
    refuses("topk", { k: 5, kAnneal: "49:10" }, "--k-anneal 49:10 begins above the 48 latents; begin at 48 or below");
    expect(["9:10", "9.5:0"].every((value) => reads("topk", "kAnneal", value))).toBe(true);
    expect(["9", "9:", ":5", "9:1.5", "-9:5", "9:5:1", "x:5", ""].some((v) => reads("topk", "kAnneal", v))).toBe(false);
  });
});

describe("batchtopk", () => {
  it("keeps the whole part of k rows, at least one", () => {
    const kept = (k: number, rows: number) => numbersAt("batchtopk", { k }, { rows }).kept;
    expect([kept(3, 10), kept(3.75, 10), kept(0.5, 3), kept(0.01, 32)]).toEqual([30, 37, 1, 1]);
    const annealed = { k: 2.25, kAnneal: "6.25:4" };
    const steps = [0, 1, 3, 4, 50];
    expect(steps.map((step) => numbersAt("batchtopk", annealed, { step }).kept)).toEqual([62, 52, 32, 22, 22]);
  });

  it("moves its threshold from the step on that it starts at, where it takes the first value", () => {
    const asked = { thresholdStart: 2, thresholdDecay: 0.9 };
    const decays = [0, 1, 2, 3, 4].map((step) => numbersAt("batchtopk", asked, { step }).cutDecay);
    expect(decays).toEqual([1, 1, 0, 0.9, 0.9]);
    expect([0, 1].map((step) => numbersAt("batchtopk", {}, { step }).cutDecay)).toEqual([0, 0.99]);
    // The threshold of an autoencoder that the run starts from is moved, not replaced.
    for (const name of ["batchtopk", "matryoshka"] as const) {
      const started = { ...asked, init: "runs/a" };
      expect([1, 2, 3].map((step) => numbersAt(name, started, { step }).cutDecay)).toEqual([1, 0.9, 0.9]);
    }
    expect(reads("batchtopk", "thresholdDecay", 1)).toBe(false);
    const replacing = { ...asked, init: "runs/a", thresholdFrom: "first" };
    expect([1, 2, 3].map((step) => numbersAt("batchtopk", replacing, { step }).cutDecay)).toEqual([1, 0, 0.9]);
    const zero = { ...asked, thresholdFrom: "zero" };
    expect([0, 1, 2, 3].map((step) => numbersAt("batchtopk", zero, { step }).cutDecay)).toEqual([1, 1, 0.9, 0.9]);
    expect(reads("batchtopk", "thresholdStart", -1)).toBe(false);
  });

  it("refuses what cannot be", () => {
    expect(specOf("batchtopk", { k: 48 })).toMatchObject({ k: 48 });
    refuses("batchtopk", { k: 48.5 }, "--k 48.5 is more than the 48 latents; lower --k or raise --latents");
    refuses(
      "batchtopk",
      { k: 2, kAnneal: "49:9" },
      "--k-anneal 49:9 begins above the 48 latents; begin at 48 or below",
    );
    refuses("batchtopk", { k: 2.5, kAnneal: "2:9" }, "--k-anneal 2:9 begins below --k 2.5; begin above it");
    expect(reads("batchtopk", "k", 0)).toBe(false);
  });
});

describe("matryoshka", () => {
  const ends = (prefixes: readonly number[], latents = 48) => {
    const spec = specOf("matryoshka", { k: 3, prefixes }, latents);
    return "prefixes" in spec ? spec.prefixes : [];
  };

  it("has prefixes of so many latents or such fractions of them, the last of all", () => {
    expect(ends([3, 12, 48])).toEqual([3, 12, 48]);
    expect(ends([3, 12])).toEqual([3, 12, 48]);
    expect(ends([1 / 16, 0.5])).toEqual([3, 24, 48]);
    expect(ends([0.1, 1])).toEqual([5, 48]);
    expect(ends([1, 2])).toEqual([1, 2, 48]);
    expect(ends([0.5])).toEqual([24, 48]);
    expect(ends([1])).toEqual([48]);
    expect(ends([6])).toEqual([6, 48]);
    expect(ends(ARCHITECTURE_DEFAULTS.prefixes as number[], 1600)).toEqual([100, 200, 400, 800, 1600]);
    // The usual fractions are of any number of latents.
    const usual = [16, 15, 8, 7, 4, 3, 2, 1].map((latents) => {
      const spec = specOf("matryoshka", { k: 1 }, latents);
      return "prefixes" in spec ? spec.prefixes : [];
    });
    expect(usual).toEqual([
      [1, 2, 4, 8, 16],
      [1, 2, 4, 8, 15],
      [1, 2, 4, 8],
      [1, 2, 4, 7],
      [1, 2, 4],
      [1, 2, 3],
      [1, 2],
      [1],
    ]);
  });

  it("weighs the losses by shares of 1, in the engine relative to the last", () => {
    const asked = { k: 3, prefixes: [6, 24, 48], prefixWeights: [2, 1, 5] };
    const spec = specOf("matryoshka", asked);
    expect(spec).toMatchObject({ weights: [0.25, 0.125, 0.625] });
    expect(rulesOf(spec).prefixes).toEqual([
      { end: 6, weight: 0.4 },
      { end: 24, weight: 0.2 },
      { end: 48, weight: 1 },
    ]);
    expect(architectureNamed("matryoshka").lossWeight!(spec)).toBe(0.625);
    expect(specOf("matryoshka", { k: 3, prefixes: [6, 12, 24] })).toMatchObject({ weights: [0.25, 0.25, 0.25, 0.25] });
  });

  it("selects as batchtopk or topk does", () => {
    const over = (prefixSelection: string) => specOf("matryoshka", { k: 3, prefixes: [6], prefixSelection });
    expect(rulesOf(over("batchtopk"))).toMatchObject({
      live: { kind: "batchtopk", k: 3 },
      inference: { param: "cut" },
    });
    expect(rulesOf(over("topk"))).toMatchObject({ live: { kind: "topk", k: 3 }, inference: { kind: "topk", k: 3 } });
    expect(paramsOf(over("batchtopk"))).toContain("cut");
    expect(paramsOf(over("topk"))).not.toContain("cut");
    expect(numbersAt("matryoshka", { k: 3.75, prefixes: [6] }, { step: 1 })).toMatchObject({
      ...{ kept: 37, cutDecay: 0.99 },
    });
  });

  it("anneals k as batchtopk or topk does", () => {
    const annealed = { k: 3, kAnneal: "9.5:4", prefixes: [6] };
    const batch = rulesOf(specOf("matryoshka", annealed));
    expect([batch.live, batch.inference]).toEqual([
      { kind: "batchtopk", k: 3 },
      { kind: "threshold", param: "cut" },
    ]);
    expect([0, 2, 4].map((step) => numbersAt("matryoshka", annealed, { step }).kept)).toEqual([95, 62, 30]);
    const perRow = { ...annealed, prefixSelection: "topk" };
    const { live, inference } = rulesOf(specOf("matryoshka", perRow));
    expect([live, inference]).toEqual([
      { kind: "topk", k: 10 },
      { kind: "topk", k: 3 },
    ]);
    expect([0, 2, 4, 9].map((step) => numbersAt("matryoshka", perRow, { step }).rowK)).toEqual([10, 6, 3, 3]);
    for (const prefixSelection of ["topk", "batchtopk"]) {
      refuses("matryoshka", { ...annealed, prefixSelection, kAnneal: "2:9" }, "--k-anneal 2:9 begins below --k 3");
      refuses("matryoshka", { ...annealed, prefixSelection, kAnneal: "49:9" }, "--k-anneal 49:9 begins above the 48");
    }
  });

  it("refuses what cannot be", () => {
    const mend = "give numbers of latents, or fractions of all";
    for (const prefixes of [
      [12, 6],
      [6, 6],
      [6, 49],
      [6.5, 12],
      [0.5, 12],
      [0.5, 0.25],
      [0.001, 0.5],
      [0.5, 0.501],
    ])
      refuses("matryoshka", { k: 3, prefixes }, `--prefixes ${prefixes.join(",")} must be`);
    refuses("matryoshka", { k: 3, prefixes: [12, 6] }, mend);
    refuses("matryoshka", { k: 3, prefixes: Array.from({ length: 16 }, (_, i) => i + 1) }, "must be 16 at most");
    const weights = { k: 3, prefixes: [6, 48], prefixWeights: [1] };
    refuses("matryoshka", weights, "--prefix-weights has 1 number for 2 prefixes; give one for each prefix");
    refuses("matryoshka", { ...weights, prefixWeights: [1, 2, 3] }, "--prefix-weights has 3 numbers for 2 prefixes");
    const appended = "--prefix-weights has 1 number for 2 prefixes (the last one, of all 48 latents, is added)";
    refuses("matryoshka", { ...weights, prefixes: [6] }, appended);
    refuses("matryoshka", { k: 49, prefixes: [6] }, "--k 49 is more than the 48 latents");
    refuses("matryoshka", { k: 49, prefixes: [6], prefixSelection: "topk" }, "--k 49 is more than the 48 latents");
    refuses("matryoshka", { k: 3.5, prefixes: [6], prefixSelection: "topk" }, "--k 3.5 is not a whole number");
    expect([[], [0], [-1]].some((value) => reads("matryoshka", "prefixes", value))).toBe(false);
    expect([[], [0, 1]].some((value) => reads("matryoshka", "prefixWeights", value))).toBe(false);
  });
});

describe("jumprelu", () => {
  it("steers to a target by the coefficient, or keeps the coefficient", () => {
    const steered = numbersAt("jumprelu", { targetL0: 8 });
    expect(steered).toMatchObject({ penalty: PENALTIES.indexOf("step"), targetL0: 8, sparsity: 0.1 / 8 });
    expect(steered.gain).toBeGreaterThan(0);
    expect(numbersAt("jumprelu", { targetL0: 8, sparsityCoef: 0.5 })).toMatchObject({
      sparsity: 0.5,
      gain: steered.gain,
    });
    expect(numbersAt("jumprelu", { targetL0: 0, sparsityCoef: 0.5 })).toMatchObject({ sparsity: 0.5, gain: 0 });
    // The loss itself has the target.
    const quadratic = { penalty: PENALTIES.indexOf("quadratic"), sparsity: 1, gain: 0, targetL0: 8 };
    expect(numbersAt("jumprelu", { targetL0: 8, sparsityPenalty: "quadratic" })).toMatchObject(quadratic);
    const tanh = { bandwidth: 2, tanhScale: 3, deadPenalty: 1e-4 };
    expect(numbersAt("jumprelu", { sparsityPenalty: "tanh", ...tanh })).toMatchObject({ penalty: 2, ...tanh });
    expect(architectureNamed("jumprelu").start!({})).toEqual({ sparsity: [1, 0] });
  });

  it("warms the coefficient up over a share of the steps", () => {
    const at = (sparsityWarmup: number, step: number, steps = 100) =>
      numbersAt("jumprelu", { targetL0: 8, sparsityCoef: 2, sparsityWarmup }, { step, steps }).sparsity;
    expect([at(0, 0), at(0.1, 0), at(0.1, 4), at(0.1, 9), at(0.1, 50), at(1, 99), at(1, 49)]).toEqual([
      2, 0.2, 1, 2, 2, 2, 1,
    ]);
    // Fewer than one step.
    expect(at(0.1, 0, 5)).toBe(2);
  });

  it("refuses what cannot be", () => {
    const none = "--target-l0 0 leaves the sparsity loss without a size; give --target-l0";
    refuses("jumprelu", { targetL0: 0 }, none);
    refuses("jumprelu", { targetL0: 0, sparsityPenalty: "quadratic", sparsityCoef: 1 }, none);
    refuses(
      "jumprelu",
      { targetL0: 48.5 },
      "--target-l0 48.5 is more than the 48 latents; lower it or raise --latents",
    );
    const still = "--sparsity-coef 0 leaves --target-l0 8 without a loss to steer by; raise it, or give --target-l0 0";
    refuses("jumprelu", { targetL0: 8, sparsityCoef: 0 }, still);
    expect(specOf("jumprelu", { targetL0: 0, sparsityCoef: 0 })).toMatchObject({ targetL0: 0 });
    expect(reads("jumprelu", "sparsityPenalty", "none")).toBe(false);
    expect(reads("jumprelu", "bandwidth", 0)).toBe(false);
    expect(reads("jumprelu", "initialThreshold", "auto")).toBe(true);
    expect(reads("jumprelu", "initialThreshold", -0.1)).toBe(false);
  });
});
