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
}

const FIELDS = Object.entries(z.toJSONSchema(trainOptions.partial(), { io: "input" }).properties as Record<string, Field>);

/** Adds a flag for each option in `names` (default: all). */
export function addFlags(command: Command, names?: readonly (keyof TrainOptions)[]): Command {
  for (const [name, field] of FIELDS) {
    if (names !== undefined && !names.includes(name as keyof TrainOptions)) continue;
    const flag = flagOf(name);
    const fixed = (DEFAULTS as Record<string, unknown>)[name] ?? field.default;
    const help = `${field.description}${fixed === undefined ? "" : ` (default: ${shown(fixed)})`}`;
    if (field.type === "boolean") {
      command.addOption(new Option(flag, help));
      command.addOption(new Option(flag.replace("--", "--no-"), `the opposite of ${flag}`));
    } else {
      command.addOption(new Option(`${flag} ${placeholder(field)}`, help).argParser((text: string) => parse(field, text, flag)));
    }
  }
  return command;
}

/** The options that were given, checked. */
export function givenOptions(command: Command): TrainOptions {
  const values = Object.entries(command.opts()).filter(([name]) => FIELDS.some(([field]) => field === name));
  return checkOptions(Object.fromEntries(values.filter(([name]) => command.getOptionValueSource(name) === "cli")), undefined, flagOf);
}

function shown(value: unknown): string {
  return typeof value === "boolean" ? (value ? "on" : "off") : String(value);
}

function placeholder(field: Field): string {
  const words = (each: Field): string => {
    if (each.anyOf) return each.anyOf.map(words).join("|");
    if (each.enum) return each.enum.join("|");
    if (each.const !== undefined) return each.const;
    return { integer: "N", number: "X", array: "IDS" }[each.type ?? ""] ?? "TEXT";
  };
  return `<${words(field)}>`;
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
