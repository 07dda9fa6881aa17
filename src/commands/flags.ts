/** Flags of the command line from the one schema of config.ts, and back. */

import { type Command, Option } from "commander";
import { checkOptions, DEFAULTS, FIELDS, flagOf, type TrainOptions } from "../config.ts";
import { hubPath, isHubPath, parseHubPath } from "../hub/address.ts";
import { type Field, wordsOfField } from "../option-values.ts";
import { ARCHITECTURE_DEFAULTS } from "../sae/architectures/index.ts";
import { combinations, listedIn } from "../sweep-options.ts";
import { UsageError } from "../util/errors.ts";
import { eitherOf, mustBe } from "../util/must.ts";

const OPTIONS = Object.entries(FIELDS) as [keyof TrainOptions, Field][];

const HEADINGS = ["Autoencoder:", "Optimisation:", "Data:", "Run:"] as const;

/** Under which heading of --help a flag stands. */
const HEADING: Readonly<Record<keyof TrainOptions, (typeof HEADINGS)[number]>> = {
  preset: "Autoencoder:",
  latents: "Autoencoder:",
  expansion: "Autoencoder:",
  architecture: "Autoencoder:",
  k: "Autoencoder:",
  kAnneal: "Autoencoder:",
  auxk: "Autoencoder:",
  multiTopk: "Autoencoder:",
  thresholdDecay: "Autoencoder:",
  thresholdStart: "Autoencoder:",
  thresholdFrom: "Autoencoder:",
  prefixes: "Autoencoder:",
  prefixWeights: "Autoencoder:",
  prefixSelection: "Autoencoder:",
  targetL0: "Autoencoder:",
  sparsityPenalty: "Autoencoder:",
  sparsityCoef: "Autoencoder:",
  sparsityWarmup: "Autoencoder:",
  bandwidth: "Autoencoder:",
  initialThreshold: "Autoencoder:",
  tanhScale: "Autoencoder:",
  deadPenalty: "Autoencoder:",
  deadTokens: "Autoencoder:",
  firedThreshold: "Autoencoder:",
  init: "Autoencoder:",
  encoderRescale: "Autoencoder:",
  decoderNorm: "Autoencoder:",
  auxkCoef: "Optimisation:",
  batch: "Optimisation:",
  tokens: "Optimisation:",
  epochs: "Optimisation:",
  lr: "Optimisation:",
  warmup: "Optimisation:",
  decay: "Optimisation:",
  eps: "Optimisation:",
  beta1: "Optimisation:",
  beta2: "Optimisation:",
  clip: "Optimisation:",
  ema: "Optimisation:",
  mseScale: "Optimisation:",
  nonFinite: "Data:",
  excludeTokens: "Data:",
  excludePositions: "Data:",
  maxNorm: "Data:",
  zeroRows: "Data:",
  holdout: "Data:",
  shuffle: "Data:",
  dropLast: "Data:",
  statisticsRows: "Data:",
  normalize: "Data:",
  dataset: "Data:",
  layer: "Data:",
  buffer: "Data:",
  model: "Data:",
  text: "Data:",
  tensor: "Data:",
  context: "Data:",
  target: "Data:",
  targetDataset: "Data:",
  skip: "Autoencoder:",
  as: "Data:",
  evalEvery: "Run:",
  seed: "Run:",
  engine: "Run:",
  dtype: "Run:",
  wire: "Run:",
  threads: "Run:",
  shards: "Run:",
  replicas: "Run:",
  capacityFactor: "Autoencoder:",
  checkpointEvery: "Run:",
  keep: "Run:",
  onDiskFull: "Run:",
  logEvery: "Run:",
  tensorboard: "Run:",
  wandb: "Run:",
};

/** Options that leave rows out: of training, and of what an autoencoder is judged by. */
export const ROW_OPTIONS = ["excludeTokens", "excludePositions", "maxNorm", "zeroRows"] as const;

/** Options of commands that encode rows with a trained autoencoder: engine, files, rows. */
export const DATA_FLAGS = [
  "engine",
  "dtype",
  "threads",
  "dataset",
  "layer",
  "target",
  "targetDataset",
  "as",
  "nonFinite",
  ...ROW_OPTIONS,
] as const;

/** The words that each flag of the schema takes, for completion. */
const WORDS = new WeakMap<Option, readonly string[]>();

/** The words that an option takes; none where it takes something else. */
export function wordsOf(option: Option): readonly string[] {
  return option.argChoices ?? WORDS.get(option) ?? [];
}

/** Which autoencoder of a folder of many. */
export function selectFlag(): Option {
  return new Option(
    "--select <name>",
    "which autoencoder of a folder of many: its path there, or a part of it (saetta inspect lists them)",
  );
}

/** The path of what `--select` names below `path`. */
export function selectedPath(path: string, select: string | undefined): string {
  if (select === undefined) return path;
  if (!isHubPath(path)) return `${path.replace(/\/+$/, "")}/${select}`;
  const address = parseHubPath(path);
  return hubPath({ ...address, path: address.path === "" ? select : `${address.path}/${select}` });
}

/** A flag that takes one of some words. */
export function choice(flags: string, help: string, words: readonly string[]): Option {
  const option = new Option(flags, help).choices(words);
  return option.argParser((text) => oneOf(words, text, option.long ?? flags));
}

export function weightsFlag(): Option {
  return choice("--weights <kind>", "running average or raw weights (default: ema where there is one)", ["ema", "raw"]);
}

/** Throws UsageError naming `what` unless `text` is one of the words. */
export function oneOf(words: readonly string[], text: string, what: string): string {
  if (words.includes(text)) return text;
  throw new UsageError(mustBe(what, eitherOf(words), text, words));
}

/**
 * Adds a flag for each option in `names`, or all under their headings. `defaults`: what help says
 * of a value that the command itself fills in.
 */
export function addFlags(
  command: Command,
  names?: readonly (keyof TrainOptions)[],
  defaults: Readonly<Partial<Record<keyof TrainOptions, unknown>>> = {},
): Command {
  const chosen = (
    names ?? HEADINGS.flatMap((heading) => OPTIONS.map(([name]) => name).filter((name) => HEADING[name] === heading))
  ).map((name) => [name, FIELDS[name]] as const);
  for (const [name, field] of chosen) {
    const flag = flagOf(name);
    const fixed = defaults[name] ?? field.default ?? (DEFAULTS as TrainOptions)[name] ?? ARCHITECTURE_DEFAULTS[name];
    const help = `${field.description}${fixed === undefined ? "" : ` (default: ${shown(fixed)})`}`;
    const option = new Option(field.type === "boolean" ? flag : `${flag} ${placeholder(field)}`, help);
    if (names === undefined) command.optionsGroup(HEADING[name]);
    if (field.type === "boolean") {
      option.flags = flag.replace("--", "--[no-]"); // help has one line for both
      command.addOption(new Option(flag.replace("--", "--no-")).hideHelp());
    } else {
      WORDS.set(option, wordsOfField(field));
      if (field.bare !== undefined) option.preset(field.bare);
      if (isOfTexts(field)) option.argParser((text, before: readonly string[] = []) => [...before, text]);
    }
    command.addOption(option);
  }
  return command;
}

/** Whether the option is a list of texts: its flag may be given several times. */
function isOfTexts(field: Field): boolean {
  return field.anyOf?.some(({ items }) => items?.type === "string") ?? false;
}

/** The options that were given, checked. */
export function givenOptions(command: Command): TrainOptions {
  const values = Object.entries(command.opts()).filter(([name]) => Object.hasOwn(FIELDS, name));
  return checkOptions(
    Object.fromEntries(values.filter(([name]) => command.getOptionValueSource(name) === "cli")),
    undefined,
    flagOf,
  );
}

/**
 * The options of each autoencoder that the flags ask for: one, or one for each combination of the
 * values that flags list, such as --k 16,32.
 */
export function givenCombinations(command: Command): TrainOptions[] {
  const listed = Object.entries(command.opts())
    .filter(([name]) => Object.hasOwn(FIELDS, name) && command.getOptionValueSource(name) === "cli")
    .map(([name, value]: [string, unknown]) => [
      name,
      typeof value === "string" ? (listedIn(name as keyof TrainOptions, value) ?? value) : value,
    ]);
  return combinations(Object.fromEntries(listed)).map((options) => checkOptions(options, undefined, flagOf));
}

function shown(value: unknown): string {
  return typeof value === "boolean" ? (value ? "on" : "off") : String(value);
}

function placeholder(field: Field): string {
  const rest = (each: Field): string[] => {
    if (each.anyOf) return each.anyOf.flatMap(rest);
    return wordsOfField(each).length > 0
      ? []
      : [field.placeholder ?? { integer: "N", number: "X", array: "IDS" }[each.type ?? ""] ?? "TEXT"];
  };
  const words = [...new Set([...wordsOfField(field), ...rest(field)])].join("|");
  return field.bare === undefined ? `<${words}>` : `[${words}]`;
}
