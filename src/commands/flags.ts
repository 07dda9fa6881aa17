/** Flags of the command line from the one schema of config.ts, and back. */

import { type Command, Option } from "commander";
import { z } from "zod";
import { checkOptions, DEFAULTS, flagOf, type TrainOptions, trainOptions } from "../config.ts";
import { UsageError } from "../util/errors.ts";
import { parseCount } from "../util/numbers.ts";

interface Field {
  readonly type?: string;
  readonly enum?: readonly string[];
  readonly const?: string;
  readonly anyOf?: readonly Field[];
  readonly minimum?: number;
  readonly description?: string;
  readonly default?: unknown;
  readonly placeholder?: string;
}

const FIELDS = Object.entries(
  z.toJSONSchema(trainOptions.partial(), { io: "input" }).properties as Record<string, Field>,
) as [keyof TrainOptions, Field][];

const HEADINGS = ["Autoencoder:", "Optimisation:", "Data:", "Run:"] as const;

/** Under which heading of --help a flag stands. */
const HEADING: Readonly<Record<keyof TrainOptions, (typeof HEADINGS)[number]>> = {
  preset: "Autoencoder:",
  latents: "Autoencoder:",
  expansion: "Autoencoder:",
  k: "Autoencoder:",
  auxk: "Autoencoder:",
  deadTokens: "Autoencoder:",
  firedThreshold: "Autoencoder:",
  init: "Autoencoder:",
  encoderRescale: "Autoencoder:",
  auxkCoef: "Optimisation:",
  batch: "Optimisation:",
  tokens: "Optimisation:",
  epochs: "Optimisation:",
  lr: "Optimisation:",
  warmup: "Optimisation:",
  decay: "Optimisation:",
  eps: "Optimisation:",
  clip: "Optimisation:",
  ema: "Optimisation:",
  mseScale: "Optimisation:",
  nonFinite: "Data:",
  excludeTokens: "Data:",
  holdout: "Data:",
  shuffle: "Data:",
  dropLast: "Data:",
  statisticsRows: "Data:",
  normalize: "Data:",
  dataset: "Data:",
  evalEvery: "Run:",
  seed: "Run:",
  engine: "Run:",
  dtype: "Run:",
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

/** The words that each flag of the schema takes, for completion. */
const WORDS = new WeakMap<Option, readonly string[]>();

/** The words that an option takes; none where it takes something else. */
export function wordsOf(option: Option): readonly string[] {
  return option.argChoices ?? WORDS.get(option) ?? [];
}

/** Adds a flag for each option in `names`, or all under their headings. `defaults`: what help says of a value that the command itself fills in. */
export function addFlags(
  command: Command,
  names?: readonly (keyof TrainOptions)[],
  defaults: Readonly<Partial<Record<keyof TrainOptions, unknown>>> = {},
): Command {
  const chosen = (
    names ?? HEADINGS.flatMap((heading) => FIELDS.map(([name]) => name).filter((name) => HEADING[name] === heading))
  ).map((name) => [name, FIELDS.find(([each]) => each === name)![1]] as const);
  for (const [name, field] of chosen) {
    const flag = flagOf(name);
    const fixed = defaults[name] ?? field.default ?? (DEFAULTS as TrainOptions)[name];
    const help = `${field.description}${fixed === undefined ? "" : ` (default: ${shown(fixed)})`}`;
    const option = new Option(field.type === "boolean" ? flag : `${flag} ${placeholder(field)}`, help);
    if (names === undefined) command.optionsGroup(HEADING[name]);
    if (field.type === "boolean") {
      option.flags = flag.replace("--", "--[no-]"); // help has one line for both
      command.addOption(new Option(flag.replace("--", "--no-")).hideHelp());
    } else {
      option.argParser((text: string) => parse(field, text, flag));
      WORDS.set(option, words(field));
    }
    command.addOption(option);
  }
  return command;
}

/** The options that were given, checked. */
export function givenOptions(command: Command): TrainOptions {
  const values = Object.entries(command.opts()).filter(([name]) => FIELDS.some(([field]) => field === name));
  return checkOptions(
    Object.fromEntries(values.filter(([name]) => command.getOptionValueSource(name) === "cli")),
    undefined,
    flagOf,
  );
}

function shown(value: unknown): string {
  return typeof value === "boolean" ? (value ? "on" : "off") : String(value);
}

function placeholder(field: Field): string {
  const rest = (each: Field): string[] => {
    if (each.anyOf) return each.anyOf.flatMap(rest);
    return words(each).length > 0
      ? []
      : [{ integer: "N", number: "X", array: "IDS" }[each.type ?? ""] ?? each.placeholder ?? "TEXT"];
  };
  return `<${[...words(field), ...rest(field)].join("|")}>`;
}

/** The words that are allowed as they are. */
function words(field: Field): readonly string[] {
  if (field.anyOf) return field.anyOf.flatMap(words);
  return field.enum ?? (field.const === undefined ? [] : [field.const]);
}

function parse(field: Field, text: string, flag: string): unknown {
  const kinds = (field.anyOf ?? [field]).map(({ type }) => type);
  if (kinds.includes("array") && /^\d+(,\d+)*$/.test(text)) return text.split(",").map(Number);
  if (kinds.includes("integer")) return parseCount(text, flag, field.minimum ?? 1);
  if (!kinds.includes("number")) return text;
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value)) return value;
  if (kinds.length > 1) return text;
  throw new UsageError(`${flag}: "${text}" is not a number`);
}
