import { describe, expect, it } from "vitest";
import {
  budgetRows,
  checkOptions,
  configFromJson,
  configToJson,
  flagOf,
  resolveConfig,
  type TrainOptions,
  totalSteps,
  withDefaults,
} from "./config.ts";
import { UsageError } from "./util/errors.ts";

const FACTS = { dIn: 64, rowsPerEpoch: 1_000_000 };
const resolve = (asked: TrainOptions, facts = FACTS) => resolveConfig(asked, ["/data/a.h5"], facts);

/** The UsageError that `call` throws. */
function usage(call: () => unknown): string {
  try {
    call();
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(UsageError);
    return (thrown as Error).message;
  }
  throw new Error("nothing was thrown");
}

describe("options that nobody gave", () => {
  it("are what the reference uses, where the data does not decide", () => {
    expect(resolve({})).toMatchObject({
      preset: "default",
      k: 32,
      auxk: 256,
      auxkCoef: 1 / 32,
      eps: 6.25e-10,
      clip: 0,
      ema: 0,
      firedThreshold: 1e-3,
      mseScale: "auto",
      holdout: 0.05,
      excludeTokens: "start",
      nonFinite: "stop",
      shuffle: true,
      dropLast: true,
      epochs: 1,
      seed: 0,
      dtype: "auto",
    });
  });

  it("follow the data", () => {
    const config = resolve({});
    expect(config.latents).toBe(1024);
    expect(config.lr).toBe(6e-3);
    expect(resolve({ lr: "auto" }).lr).toBe(config.lr);
    expect(resolve({ lr: 1e-3 }).lr).toBe(1e-3);
    expect(config.batch).toBe(512);
    expect(config.deadTokens).toBe(100_000);
    expect(config.warmup).toBe(Math.round(Math.floor(1e6 / 512) * 0.05));
    expect(resolve({ tokens: 1e9 }).deadTokens).toBe(10_000_000);
    expect(resolve({ tokens: 1e9 }).warmup).toBe(1000);
    expect(resolve({ tokens: 1e9 }).batch).toBe(4096);
    expect(resolve({}, { dIn: 64, rowsPerEpoch: 10_000 }).latents).toBe(128);
  });

  it.each([1, 3, 31, 200, 257, 5000])("make a step of any data, also of %i rows", (rowsPerEpoch) => {
    const config = resolve({}, { dIn: 4, rowsPerEpoch });
    expect(totalSteps(rowsPerEpoch, config.batch, true)).toBeGreaterThan(0);
    expect(config.k).toBeLessThanOrEqual(config.latents);
  });

  it.each([1, 5, 15])("fit %i latents, whatever the architecture", (latents) => {
    for (const architecture of ["topk", "batchtopk", "matryoshka", "jumprelu"] as const) {
      const { k, targetL0 } = resolve({ architecture, latents });
      expect(architecture === "jumprelu" ? targetL0 : k).toBe(latents);
    }
    expect(usage(() => resolve({ architecture: "jumprelu", latents, targetL0: 16 }))).toMatch(
      /^--target-l0 16 is more/,
    );
  });
});

describe("presets", () => {
  const notes = {
    latents: 32768,
    k: 32,
    auxk: 256,
    auxkCoef: 1 / 32,
    lr: 1e-4,
    warmup: 0,
    decay: 0,
    deadTokens: 10_000_000,
    ema: 0,
    excludeTokens: "none",
  };

  it("hold the values of the reference", () => {
    const many = { dIn: 768, rowsPerEpoch: 1e7 };
    expect(resolve({ preset: "openai" }, many)).toMatchObject({
      ...notes,
      batch: 131072,
      eps: 6.25e-10,
      clip: 0,
      statisticsRows: 32768,
      encoderRescale: true,
    });
    expect(resolve({ preset: "simple" }, many)).toMatchObject({
      ...notes,
      batch: 4096,
      eps: 1e-8,
      clip: 1,
      statisticsRows: 65536,
      encoderRescale: false,
    });
  });

  it("have Anthropic's recipe of JumpReLU, for that architecture alone", () => {
    expect(resolve({ preset: "anthropic" })).toMatchObject({
      ...{ architecture: "jumprelu", sparsityPenalty: "tanh", tanhScale: 4, bandwidth: 2, initialThreshold: 0.1 },
      ...{ deadPenalty: 3e-6, sparsityWarmup: 1, normalize: "scale", decay: 0.2, targetL0: 32 },
    });
    expect(resolve({ preset: "anthropic", bandwidth: 1, targetL0: 9 })).toMatchObject({ bandwidth: 1, targetL0: 9 });
    expect(resolve({ preset: "anthropic", architecture: "jumprelu" }).tanhScale).toBe(4);
    expect(usage(() => resolve({ preset: "anthropic", architecture: "topk" }))).toBe(
      "--preset anthropic is of --architecture jumprelu; leave out one of them",
    );
  });

  it("multi-TopK takes the place of AuxK", () => {
    expect(resolve({ multiTopk: 0.125, k: 8 })).toMatchObject({ multiTopk: 0.125, k: 8, auxk: 0 });
    const mend = "exclude each other; leave out one of them";
    expect(usage(() => resolve({ multiTopk: 0.125, auxk: 4 }))).toBe(`--multi-topk and --auxk 4 ${mend}`);
    expect(usage(() => resolve({ multiTopk: 1, architecture: "jumprelu" }))).toBe(
      "--multi-topk is not an option of --architecture jumprelu; leave it out, or use --architecture topk",
    );
  });

  it("give way to what was asked for", () => {
    expect(resolve({ preset: "simple", eps: 1e-9, batch: 100 })).toMatchObject({ eps: 1e-9, batch: 100, clip: 1 });
    expect(resolve({ preset: "simple", expansion: 4 }).latents).toBe(256);
    expect(withDefaults({ preset: "simple" }).statisticsRows).toBe(65536);
  });
});

describe("values that contradict each other", () => {
  it.each([
    [{ latents: 10, expansion: 2 }, "--latents and --expansion exclude each other; give one of them"],
    [{ tokens: 10, epochs: 2 }, "--tokens and --epochs exclude each other; give one of them"],
    [{ latents: 10, k: 11 }, "--k 11 is more than the 10 latents; lower --k or raise --latents"],
    [
      { batch: 2_000_000 },
      "a budget of 1000000 rows does not fill one batch of 2000000; lower --batch, raise --tokens or --epochs, or pass --no-drop-last",
    ],
  ])("%j are refused", (asked, message) => {
    expect(usage(() => resolve(asked))).toBe(message);
  });

  it("are not seen where a default gives way", () => {
    expect(resolve({ latents: 10 })).toMatchObject({ k: 10, auxk: 10 });
    expect(resolve({ batch: 2_000_000, dropLast: false }).batch).toBe(2_000_000);
  });
});

describe("the budget", () => {
  it("is in rows, or in passes over the data", () => {
    expect(resolve({ tokens: 5000 })).toMatchObject({ tokens: 5000 });
    expect(resolve({ tokens: 5000 }).epochs).toBeUndefined();
    expect(budgetRows(resolve({ tokens: 5000 }), 1000)).toBe(5000);
    expect(budgetRows(resolve({ epochs: 2.5 }), 1000)).toBe(2500);
    expect(budgetRows(resolve({}), 1000)).toBe(1000);
    expect(totalSteps(1000, 300, true)).toBe(3);
    expect(totalSteps(1000, 300, false)).toBe(4);
  });

  it("is met by --expansion in whole latents", () => {
    expect(resolve({ expansion: 1.5 }).latents).toBe(96);
    expect(resolve({ expansion: 0.001 })).toMatchObject({ latents: 1, k: 1 });
  });
});

describe("config.json", () => {
  it("is the whole config, in snake case, and gives the same config again", () => {
    for (const asked of [
      {},
      { preset: "openai", tokens: 1_000_000, excludeTokens: [1, 2], mseScale: 0.5, ema: 0.99, init: "a/b", threads: 3 },
    ] as const) {
      const config = resolve({ ...asked, excludeTokens: [1, 2] });
      const json = JSON.stringify(configToJson(config));
      expect(json).toContain('"dead_tokens":');
      const { options, data } = configFromJson(json, "config.json");
      expect(data).toEqual(["/data/a.h5"]);
      expect(resolve(options, { dIn: 64, rowsPerEpoch: 1_000_000 })).toEqual(config);
    }
  });

  it("keeps the dtype that was asked for: auto as auto, and f32 in a run from before there was a choice", () => {
    expect(configToJson(resolve({}))).toMatchObject({ dtype: "auto" });
    for (const dtype of ["f32", "bf16"] as const) {
      const { options } = configFromJson(JSON.stringify({ ...configToJson(resolve({})), dtype }), "x");
      expect(resolve(options).dtype).toBe(dtype);
    }
  });

  it("may be written by hand, with the names of the flags too", () => {
    expect(configFromJson('{"auxk-coef": 0.5, "dead_tokens": 7, "logEvery": 3}', "x").options).toEqual({
      auxkCoef: 0.5,
      deadTokens: 7,
      logEvery: 3,
    });
    expect(configFromJson("{}", "x").data).toBeUndefined();
  });

  it("may hold what a flag would take", () => {
    const text =
      '{"tokens": "100k", "batch": "1e3", "latents": "1.5k", "k": "4", "lr": "1e-4", "exclude_tokens": "5,7"}';
    expect(configFromJson(text, "x").options).toEqual({
      tokens: 100_000,
      batch: 1000,
      latents: 1500,
      k: 4,
      lr: 1e-4,
      excludeTokens: [5, 7],
    });
  });

  it.each([
    ["{", /^c\.json: not valid JSON \(/],
    ["[1]", /^c\.json: must hold a JSON object$/],
    ["null", /^c\.json: must hold a JSON object$/],
    ['{"data": "a.h5"}', /^c\.json: data must be a list of paths$/],
    ['{"latent_count": 4}', /^c\.json: unknown option latent_count$/],
    ['{"training_tokens": 4}', /^c\.json: unknown option training_tokens; here it is tokens \(it counts rows\)$/],
    ['{"lrWarmUpSteps": 4}', /^c\.json: unknown option lr_warm_up_steps; here it is warmup \(it counts steps\)$/],
    ['{"l1-coefficient": 4}', /^c\.json: unknown option l1_coefficient; k sets the sparsity of a TopK autoencoder$/],
    ['{"__proto__": {"k": 1}}', /^c\.json: unknown option __proto__$/],
    ['{"k": "four"}', /^c\.json: k must be a number above 0, but is "four"$/],
    ['{"k": "4.5.1"}', /^c\.json: k must be a number above 0, .*but is "4\.5\.1"$/],
    ['{"k": null}', /^c\.json: k must be a number above 0, but is null$/],
    ['{"k": {"a": 1}}', /^c\.json: k must be a number above 0, but is an object$/],
    ['{"dead_tokens": 0}', /^c\.json: dead_tokens must be a whole number of at least 1, .*but is 0$/],
    ['{"tokens": "100kk"}', /^c\.json: tokens must be a whole number of at least 1, .*but is "100kk"$/],
    ['{"lr": -1}', /^c\.json: lr must be auto or a number above 0, but is -1$/],
    ['{"lr": 1e999}', /^c\.json: lr must be auto or a number above 0, but is Infinity$/],
    ['{"engine": "gpu"}', /^c\.json: engine must be auto, cpu, cuda or reference, but is "gpu"; did you mean cuda\?$/],
    ['{"dtype": "bf61"}', /^c\.json: dtype must be auto, f32, bf16 or fp16, but is "bf61"; did you mean bf16\?$/],
    [
      '{"exclude_tokens": [1, -2]}',
      /^c\.json: exclude_tokens must be start, none or a list of whole numbers of at least 0 and start, but is \[1, -2\]$/,
    ],
    ['{"mse_scale": "big"}', /^c\.json: mse_scale must be auto or a number above 0, but is "big"$/],
    ['{"holdout": 0.9}', /^c\.json: holdout must be a number from 0 to 0\.5, but is 0\.9$/],
    ['{"ema": 1}', /^c\.json: ema must be a number of at least 0 and below 1, but is 1$/],
    ['{"shuffle": 1}', /^c\.json: shuffle must be true or false, but is 1$/],
  ])("%s is refused with file and field", (text, message) => {
    expect(usage(() => configFromJson(text, "c.json"))).toMatch(message);
  });
});

describe("targets", () => {
  const facts = { dIn: 8, rowsPerEpoch: 10_000 };

  it("are one path or several, from flags, config files and the library", () => {
    expect(checkOptions({ target: "y.h5" }, undefined, flagOf)).toEqual({ target: "y.h5" });
    expect(checkOptions({ target: "12" }, undefined, flagOf)).toEqual({ target: "12" });
    expect(checkOptions({ target: ["a.h5", "b.h5"] }, undefined, flagOf)).toEqual({ target: ["a.h5", "b.h5"] });
    for (const target of ["", [], 3, [""]])
      expect(() => checkOptions({ target }, undefined, flagOf)).toThrow(/--target/);
  });

  it("are kept as the files that they are, and a transcoder has a skip connection only when asked", () => {
    const config = resolveConfig({ target: "acts/*.h5" }, ["/x.h5"], { ...facts, target: ["/acts/y.h5"] });
    expect(config).toMatchObject({ target: ["/acts/y.h5"], skip: false });
    const json = configToJson({ ...config, skip: true, targetDataset: "out" });
    expect(json).toMatchObject({ target: ["/acts/y.h5"], target_dataset: "out", skip: true });
    const { options } = configFromJson(JSON.stringify(json), "config.json");
    expect(options).toMatchObject({ target: ["/acts/y.h5"], targetDataset: "out", skip: true });
    expect(configToJson(resolveConfig({}, ["/x.h5"], facts))).not.toHaveProperty("target");
  });

  it("refuse what is only of a transcoder, or never of one", () => {
    const refused = (options: TrainOptions, target?: string[]) =>
      usage(() => resolveConfig(options, ["/x.h5"], { ...facts, target }));
    expect(refused({ skip: true })).toBe(
      "--skip is of a transcoder, which --target trains; give --target, or leave out --skip",
    );
    expect(refused({ targetDataset: "out" })).toMatch(/^--target-dataset is of a transcoder/);
    for (const normalize of ["unit", "layer_norm"] as const)
      expect(refused({ normalize }, ["/y.h5"])).toMatch(
        new RegExp(`^--normalize ${normalize} and --target exclude each other: .*; give --normalize scale or none$`),
      );
  });
});

it("what is undefined was not given", () => {
  expect(checkOptions({ k: undefined, lr: 1 }, undefined, flagOf)).toEqual({ lr: 1 });
  expect(usage(() => checkOptions({ kk: 1 }, undefined, flagOf))).toBe("unknown option --kk; did you mean --k?");
});
