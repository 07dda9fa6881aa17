/**
 * ONE schema behind the flags of `saetta train`, their help, config files, the library's options
 * and config.json. A value is looked up in the flags (or the library's options), then the config
 * file, then the preset, then the defaults here; what the data decides is filled in by
 * `resolveConfig`.
 */

import { z } from "zod";
import { ENGINE_NAMES } from "./engine/registry.ts";
import { gridOptions } from "./grid-options.ts";
import { rateOf } from "./learning-rate.ts";
import { optimizerOptions } from "./optimizer-options.ts";
import { allowedValues, type Field, valueOfText, wordsOfField } from "./option-values.ts";
import { ourWord } from "./other-words.ts";
import { PRESETS, presetNames } from "./presets.ts";
import * as architectures from "./sae/architectures/index.ts";
import { checkTarget, transcoderOptions } from "./transcoder-options.ts";
import { didYouMean } from "./util/closest.ts";
import { messageOf, UsageError } from "./util/errors.ts";
import { type Json, parseJsonText } from "./util/json.ts";
import { mustBe } from "./util/must.ts";

const count = z.number().int().positive();
const whole = z.number().int().nonnegative();
const positive = z.number().positive();

/**
 * What may be asked for. Everything is optional; in the metadata `default` is what help shows for a
 * value that depends on the data, `placeholder` for text.
 */
export const trainOptions = z.strictObject({
  preset: z.enum(presetNames()).describe("the values that everything not given starts from"),
  latents: count.describe("number of latents n").meta({ default: "about 16 x width, less for little data" }),
  expansion: positive.describe("number of latents as a multiple of the width, instead of --latents"),
  architecture: z.enum(architectures.architectureNames()).describe("kind of the autoencoder"),
  ...architectures.ARCHITECTURE_OPTIONS,
  batch: count.describe("rows a step").meta({ default: "256 to 4096, from the budget" }),
  tokens: count.describe("budget in rows, such as 10M; past the end of the data a new epoch starts"),
  epochs: positive.describe("budget in passes over the data").meta({ default: 1 }),
  ...optimizerOptions,
  deadTokens: count
    .describe("rows without firing after which a latent is dead")
    .meta({ default: "10M, at most a tenth of the budget" }),
  firedThreshold: z.number().nonnegative().describe("a latent fires on a row where its value is above this"),
  mseScale: z
    .union([z.literal("auto"), positive])
    .describe("weight of the reconstruction loss; auto: one over the variance"),
  decoderNorm: z
    .enum(["unit", "free"])
    .describe("decoder rows: unit (gradient projected, norm 1 after each step) or free (trained like any weight)")
    .meta({ default: "unit; with --target free" }),
  encoderRescale: z
    .boolean()
    .describe("scale the encoder so that unit-norm inputs start with unit-norm reconstructions"),
  nonFinite: z.enum(["stop", "skip"]).describe("what to do with rows or steps that are not finite"),
  excludeTokens: z
    .union([z.enum(["start", "none"]), z.array(z.union([whole, z.literal("start")])).min(1)])
    .describe("rows to leave out: start (of documents), none, or token ids with commas, such as start,2")
    .meta({ default: "start, where the file has tokens" }),
  excludePositions: z
    .union([z.literal("none"), z.array(whole).min(1)])
    .describe("rows to leave out by their position in a context, from 0, with commas")
    .meta({ placeholder: "LIST" }),
  maxNorm: z
    .number()
    .nonnegative()
    .describe(
      "leave out rows whose norm is more than X times the median norm; reads all rows once before training; 0 is off",
    ),
  zeroRows: z
    .enum(["skip", "keep"])
    .describe("what to do with rows of files that are all zero, as rows that were never written are"),
  holdout: z.number().min(0).max(0.5).describe("share of the sequences kept out of training, for evaluation"),
  evalEvery: whole
    .describe("steps between evaluations on the hold-out; 0: only at the end")
    .meta({ default: "a tenth of the steps" }),
  init: z
    .string()
    .min(1)
    .describe("start from the weights of this autoencoder (run, checkpoint, or a folder or file of another program)")
    .meta({ placeholder: "PATH" }),
  shuffle: z.boolean().describe("rows in a seeded random order; --no-shuffle: in the order of the file"),
  dropLast: z.boolean().describe("leave out the last batch when it is not full"),
  statisticsRows: count.describe("rows sampled for the median and the variance"),
  seed: whole.describe("seed of everything random"),
  normalize: z
    .enum(["none", "scale", "unit", "layer_norm"])
    .describe(
      "what is done to rows first: scale (all by one factor), unit (each less its mean, norm 1), layer_norm (each less its mean, spread 1)",
    ),
  engine: z.enum(["auto", ...ENGINE_NAMES]).describe("what computes; auto: an NVIDIA card where there is one"),
  dtype: z
    .enum(["auto", "f32", "bf16", "fp16"])
    .describe(
      "what products are computed in; on the cpu bf16 is only a screen of the encoder's product and the results have the same bits; " +
        "auto: bf16 on the cuda engine, on the cpu the fastest that is exact (the reference engine: always float64)",
    ),
  threads: count
    .describe("threads of the cpu engine")
    .meta({ default: "all processors, shared by the ranks of a host" }),
  ...gridOptions,
  checkpointEvery: whole
    .describe("steps between checkpoints; 0: only at the end")
    .meta({ default: "a tenth of the steps, at most 1000" }),
  keep: count.describe("checkpoints to keep"),
  onDiskFull: z
    .enum(["stop", "wait"])
    .describe("what to do when there is no room to save: stop, or wait until there is"),
  logEvery: count.describe("steps between lines of metrics.jsonl").meta({ default: "a thousandth of the steps" }),
  tensorboard: z.boolean().describe("also write the metrics as a TensorBoard event file into the run folder"),
  wandb: z
    .string()
    .min(1)
    .describe("also write them as an offline run of this Weights & Biases project, for wandb sync")
    .meta({ placeholder: "PROJECT" }),
  model: z
    .string()
    .min(1)
    .describe("language model to train on while it computes: a .onnx file or its folder; with --text and --tensor")
    .meta({ placeholder: "PATH" }),
  text: z.string().min(1).describe("text that --model reads, as saetta harvest takes it").meta({ placeholder: "FILE" }),
  tensor: z.string().min(1).describe("tensor of --model whose rows are trained on").meta({ placeholder: "NAME" }),
  context: count.describe("tokens per context of --model").meta({ default: "the model's maximum, at most 1024" }),
  buffer: count
    .describe("rows that a stream of rows is mixed in")
    .meta({ default: "an eighth of the budget, at most 1M and 1 GiB" }),
  dataset: z
    .string()
    .min(1)
    .describe("name of the dataset (HDF5), tensor (safetensors, torch) or column (Arrow)")
    .meta({ default: "hidden_states", placeholder: "NAME" }),
  layer: whole
    .describe("which layer of activations [tokens, layers, width], from 0, as vLLM writes them")
    .meta({ default: "0, where there is one layer" }),
  ...transcoderOptions,
  as: z
    .enum(["bf16", "f16"])
    .describe("what the 2-byte elements of the activations are, in files that have no name for bfloat16")
    .meta({ default: "the file's type; bits that look like bf16 are read as bf16" }),
});

/** What may be asked for, by the names of the library. */
export type TrainOptions = Partial<z.infer<typeof trainOptions>>;

/** Options that only some architectures have. */
type ArchitectureOption = keyof typeof architectures.ARCHITECTURE_OPTIONS;

/** Options that a run may be without. */
type OptionalName =
  | ArchitectureOption
  | "tokens"
  | "epochs"
  | "init"
  | "threads"
  | "wandb"
  | "dataset"
  | "layer"
  | "buffer"
  | "model"
  | "text"
  | "tensor"
  | "context"
  | "targetDataset"
  | "as"
  | "capacityFactor";

/**
 * What a run does: every choice made. Stored as config.json, from which any run can be repeated.
 */
export type Config = Readonly<
  Omit<Required<TrainOptions>, "expansion" | "target" | "lr" | OptionalName> &
    Pick<TrainOptions, OptionalName> & {
      lr: number;
      data: readonly string[];
      /** The files of the targets of a transcoder. */
      target?: readonly string[] | undefined;
      /**
       * The largest norm of a row that is kept: maxNorm times the median norm that the run found.
       */
      normLimit?: number | undefined;
    }
>;

/**
 * What a value is when nobody says otherwise. Options that are not here depend on the data, or are
 * absent.
 */
export const DEFAULTS = {
  preset: "default",
  architecture: "topk",
  decay: 0.2,
  eps: 6.25e-10,
  beta1: 0.9,
  beta2: 0.999,
  clip: 0,
  ema: 0,
  firedThreshold: 1e-3,
  mseScale: "auto",
  encoderRescale: false,
  nonFinite: "stop",
  excludeTokens: "start",
  excludePositions: "none",
  maxNorm: 0,
  zeroRows: "skip",
  holdout: 0.05,
  shuffle: true,
  dropLast: true,
  statisticsRows: 32768,
  seed: 0,
  skip: false,
  normalize: "scale",
  engine: "auto",
  dtype: "auto",
  wire: "f32",
  keep: 2,
  onDiskFull: "stop",
  tensorboard: false,
} as const satisfies TrainOptions;

/**
 * What may change when a run goes on, because it does not change the maths of the steps that are
 * done. `dtype` changes no bit of those to come either: the cpu engine's bf16 only says which
 * pre-activations are worth computing in float32. So a run that was asked for bf16 can go on where
 * there is none.
 */
export const CHANGEABLE: readonly (keyof TrainOptions)[] = [
  "tokens",
  "epochs",
  "engine",
  "dtype",
  "wire",
  "threads",
  "shards",
  "replicas",
  "evalEvery",
  "checkpointEvery",
  "keep",
  "onDiskFull",
  "logEvery",
  "tensorboard",
  "wandb",
];

/**
 * Options that follow from the budget where nobody gives them, and may change with it; `batch` and
 * `latents` follow from it too, and are fixed.
 */
export const BUDGET_OPTIONS = ["warmup", "deadTokens", "evalEvery", "checkpointEvery", "logEvery"] as const;

/** Those of them that are neither given nor set by the preset. */
export function derivedOptions(asked: TrainOptions): (typeof BUDGET_OPTIONS)[number][] {
  const given = withDefaults(asked);
  return BUDGET_OPTIONS.filter((name) => given[name] === undefined);
}

/** What the data says when a config is resolved. */
export interface DataFacts {
  readonly dIn: number;
  /** The files of the targets, of rows that are pairs; empty where a program made them. */
  readonly target?: readonly string[] | undefined;
  /** Rows that an epoch visits. */
  readonly rowsPerEpoch: number;
}

/** What was asked for over its preset over the defaults; what is still open depends on the data. */
export function withDefaults(asked: TrainOptions): TrainOptions & Required<Pick<TrainOptions, keyof typeof DEFAULTS>> {
  const preset: TrainOptions = PRESETS[asked.preset ?? "default"];
  if (preset.architecture !== undefined && (asked.architecture ?? preset.architecture) !== preset.architecture)
    throw new UsageError(`--preset ${asked.preset} is of --architecture ${preset.architecture}`, {
      mend: "leave out one of them",
    });
  const { defaults } = architectures.architectureNamed(
    asked.architecture ?? preset.architecture ?? DEFAULTS.architecture,
  );
  // A width given as an expansion replaces the preset's.
  const latents = asked.expansion === undefined ? {} : { latents: undefined };
  // Multi-TopK takes the place of AuxK.
  const multi = asked.multiTopk === undefined ? {} : { auxk: 0 };
  return { ...DEFAULTS, ...(defaults as TrainOptions), ...preset, ...latents, ...multi, ...asked };
}

/** Throws UsageError for an option that the architecture does not have. */
function checkArchitecture(asked: TrainOptions, architecture: architectures.ArchitectureSpec["architecture"]): void {
  const { options } = architectures.architectureNamed(architecture);
  for (const name of Object.keys(architectures.ARCHITECTURE_OPTIONS) as ArchitectureOption[]) {
    if (asked[name] === undefined || Object.hasOwn(options, name)) continue;
    const has = architectures
      .architectureNames()
      .filter((each) => Object.hasOwn(architectures.architectureNamed(each).options, name));
    throw new UsageError(`${flagOf(name)} is not an option of --architecture ${architecture}`, {
      mend: `leave it out, or use --architecture ${has.join(" or ")}`,
    });
  }
}

/** Options, and what a run found that is kept with them. */
export type FoundOptions = TrainOptions & Pick<Config, "normLimit">;

/** Fills in what depends on the data. Throws UsageError for values that contradict each other. */
export function resolveConfig(
  asked: FoundOptions,
  data: readonly string[],
  { dIn, target, rowsPerEpoch }: DataFacts,
): Config {
  checkTarget(asked, target !== undefined);
  if (asked.latents !== undefined && asked.expansion !== undefined) {
    throw new UsageError("--latents and --expansion exclude each other", { mend: "give one of them" });
  }
  if (asked.tokens !== undefined && asked.epochs !== undefined) {
    throw new UsageError("--tokens and --epochs exclude each other", { mend: "give one of them" });
  }
  const { expansion, tokens, epochs, target: _, ...given } = withDefaults(asked);
  const budget = budgetRows({ tokens, epochs }, rowsPerEpoch);
  if (!Number.isSafeInteger(budget))
    throw new UsageError(`--epochs ${epochs} is more rows than can be counted`, { mend: "lower --epochs" });
  const latents =
    given.latents ??
    (expansion === undefined ? sensibleLatents(dIn, budget) : Math.max(1, Math.round(expansion * dIn)));
  checkArchitecture(asked, given.architecture);
  const atMost = (name: "k" | "auxk" | "targetL0", value: number | undefined) =>
    value === undefined ? {} : { [name]: asked[name] === value && name !== "auxk" ? value : Math.min(value, latents) };
  const batch = given.batch ?? sensibleBatch(budget);
  const steps = totalSteps(budget, batch, given.dropLast);
  if (steps === 0) {
    throw new UsageError(`a budget of ${budget} rows does not fill one batch of ${batch}`, {
      mend: "lower --batch, raise --tokens or --epochs, or pass --no-drop-last",
    });
  }
  const config: Config = {
    ...given,
    data,
    ...(target === undefined || target.length === 0 ? {} : { target }),
    latents,
    ...atMost("k", given.k),
    ...atMost("auxk", given.auxk),
    ...atMost("targetL0", given.targetL0),
    batch,
    shards: given.shards ?? 1,
    replicas: given.replicas ?? 1,
    ...(tokens === undefined ? { epochs: epochs ?? 1 } : { tokens }),
    lr: rateOf(given, { dIn, latents, isTranscoder: target !== undefined }),
    // A transcoder's decoder starts at 0 and is free, as sparsify's.
    decoderNorm: given.decoderNorm ?? (target === undefined ? "unit" : "free"),
    warmup: given.warmup ?? sensibleWarmup(steps),
    deadTokens: given.deadTokens ?? Math.max(1, Math.min(10_000_000, Math.round(budget / 10))),
    evalEvery: given.evalEvery ?? Math.ceil(steps / 10),
    checkpointEvery: given.checkpointEvery ?? Math.min(1000, Math.ceil(steps / 10)),
    logEvery: given.logEvery ?? Math.ceil(steps / 1000),
  };
  specOf(config);
  return config;
}

/** 5 % of the steps, at most 1000. */
export function sensibleWarmup(steps: number): number {
  return Math.min(1000, Math.round(steps * 0.05));
}

/** The autoencoder of a run. Throws UsageError for options that contradict each other. */
export function specOf(config: Config): architectures.ArchitectureSpec {
  return architectures.architectureNamed(config.architecture).spec(config, config.latents);
}

/** Rows that the run is to train on. */
export function budgetRows(config: Pick<TrainOptions, "tokens" | "epochs">, rowsPerEpoch: number): number {
  return config.tokens ?? Math.round((config.epochs ?? 1) * rowsPerEpoch);
}

export function totalSteps(budget: number, batch: number, dropLast: boolean): number {
  return dropLast ? Math.floor(budget / batch) : Math.ceil(budget / batch);
}

/**
 * Near 16 x the width, a power of two, but few enough that at k = 32 a latent sees some thousand
 * examples.
 */
function sensibleLatents(dIn: number, budget: number): number {
  return 2 ** Math.max(6, Math.round(Math.log2(Math.min(16 * dIn, budget / 100))));
}

/**
 * A power of two that leaves a thousand steps or more, where the budget allows, and at least one.
 */
function sensibleBatch(budget: number): number {
  const best = Math.min(12, Math.max(8, Math.floor(Math.log2(budget / 1000))));
  return 2 ** Math.max(0, Math.min(best, Math.floor(Math.log2(budget))));
}

/** The name of an option as config files have it: auxkCoef -> auxk_coef. */
export const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
/** The name of an option as the library has it, from a flag's or a config file's. */
export const camel = (name: string): string =>
  name.replace(/[-_]([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());

/** The flag of an option: auxkCoef -> --auxk-coef. */
export function flagOf(name: string): string {
  return `--${snake(name).replaceAll("_", "-")}`;
}

/** What config.json has beside the options and the data: it is found by a run, not asked for. */
const NORM_LIMIT = "normLimit" satisfies keyof Config;

/** What the options were that a config.json written before they existed does not have. */
export const EARLIER: TrainOptions = { normalize: "none", zeroRows: "keep" };

/**
 * The object of config.json: names in snake_case, as in the metrics; the data first, then the
 * options in the order of the schema.
 */
export function configToJson(config: Config): Record<string, unknown> {
  const names = ["data", ...Object.keys(trainOptions.shape), NORM_LIMIT] as (keyof Config)[];
  return Object.fromEntries(
    names.filter((name) => config[name] !== undefined).map((name) => [snake(name), config[name]]),
  );
}

/**
 * Reads a config file: a JSON object with the names of config.json (or of the flags). Any run's
 * config.json works; its `data`, its record of the run and the largest norm that the run found are
 * returned apart. Throws UsageError naming file and field.
 */
export function configFromJson(
  text: string,
  where: string,
): {
  options: TrainOptions;
  data: readonly string[] | undefined;
  run: Json | undefined;
  normLimit: number | undefined;
} {
  let parsed: unknown;
  try {
    parsed = parseJsonText(text, where);
  } catch (cause) {
    throw new UsageError(messageOf(cause), { cause });
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed))
    throw new UsageError("must hold a JSON object", { where });
  const {
    data,
    run,
    [NORM_LIMIT]: normLimit,
    ...rest
  } = Object.fromEntries(Object.entries(parsed).map(([name, value]) => [camel(name), value]));
  if (data !== undefined && !z.array(z.string()).safeParse(data).success)
    throw new UsageError("data must be a list of paths", { where });
  if (normLimit !== undefined && !positive.safeParse(normLimit).success)
    throw new UsageError("norm_limit must be a number above 0", { where });
  return {
    options: checkOptions(rest, where, snake),
    data: data as readonly string[] | undefined,
    run: run as Json | undefined,
    normLimit: normLimit as number | undefined,
  };
}

/** What JSON Schema says of each option. */
export const FIELDS = Object.fromEntries(
  Object.entries(z.toJSONSchema(trainOptions.partial(), { io: "input" }).properties as Record<string, Field>),
) as Readonly<Record<keyof TrainOptions, Field>>;

/**
 * Checks options of unknown origin. What is undefined was not given; text is read as a flag would
 * read it. Throws UsageError that names the option as `spell` writes it.
 */
export function checkOptions(
  options: Record<string, unknown>,
  where: string | undefined,
  spell: (name: string) => string,
): TrainOptions {
  const at = where === undefined ? {} : { where };
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  for (const [name] of given) if (!isOption(name)) throw new UsageError(unknownOption(name, spell), at);
  const values = given.map(([name, value]) => [
    name,
    typeof value === "string" ? valueOfText(FIELDS[name as keyof TrainOptions], value) : value,
  ]);
  const result = trainOptions.partial().safeParse(Object.fromEntries(values));
  if (result.success) return result.data;
  const name = String(result.error.issues[0]?.path[0]) as keyof TrainOptions;
  const field = FIELDS[name];
  throw new UsageError(mustBe(spell(name), allowedValues(field), options[name], wordsOfField(field)), at);
}

function isOption(name: string): name is keyof TrainOptions {
  return Object.hasOwn(FIELDS, name);
}

function unknownOption(name: string, spell: (name: string) => string): string {
  const ours = ourWord(name, spell, Object.keys(FIELDS));
  const meant = ours ?? didYouMean(spell(name), Object.keys(FIELDS).map(spell));
  return `unknown option ${spell(name)}${meant}`;
}
