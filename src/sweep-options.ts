/**
 * Options that are lists: one autoencoder for each combination of their values, trained from one
 * read (`saetta train acts.h5 --k 16,32 --lr 3e-4,1e-3`).
 */

import { CHANGEABLE, camel, checkOptions, FIELDS, flagOf, snake, type TrainOptions } from "./config.ts";
import type { Field } from "./option-values.ts";
import { messageOf, UsageError } from "./util/errors.ts";
import { type Json, parseJsonText } from "./util/json.ts";

/** Autoencoders of one sweep at most. */
export const MOST_MEMBERS = 1000;

/** Options that say where rows come from, which is one for a sweep. */
const OF_DATA: readonly (keyof TrainOptions)[] = [
  "dataset",
  "as",
  "target",
  "targetDataset",
  "model",
  "text",
  "tensor",
  "context",
  "buffer",
];

/** Whether members of a sweep may differ in the option: it changes what is trained. */
export function mayDiffer(name: keyof TrainOptions): boolean {
  const isOfRun = CHANGEABLE.includes(name) && name !== "tokens" && name !== "epochs";
  return !isOfRun && !OF_DATA.includes(name) && name !== "capacityFactor";
}

/**
 * The values that a flag's text lists, such as "16,32"; undefined where it is one value. An option
 * that is itself a list, or a text, is never split.
 */
export function listedIn(name: keyof TrainOptions, text: string): readonly string[] | undefined {
  const field = FIELDS[name];
  if (!text.includes(",") || !mayDiffer(name) || !isScalar(field)) return undefined;
  const values = text.split(",").map((each) => each.trim());
  return values.every((each) => each !== "") ? values : undefined;
}

/** Whether the option is one number or word, so that a list of them is several values. */
export function isScalar(field: Field): boolean {
  if (field.anyOf !== undefined) return field.anyOf.every(isScalar);
  if (field.type === "boolean") return true;
  return field.enum !== undefined || field.const !== undefined || field.type === "integer" || field.type === "number";
}

/** Options by their names, some of them lists of values. */
export type Listed = Readonly<Record<string, unknown>>;

/**
 * One object of options per combination, the last list varying fastest. Lists of options that are
 * lists themselves stay one value. Throws UsageError where there are too many.
 */
export function combinations(listed: Listed): Record<string, unknown>[] {
  let all: Record<string, unknown>[] = [{}];
  for (const [name, value] of Object.entries(listed)) {
    const field = Object.hasOwn(FIELDS, name) ? FIELDS[name as keyof TrainOptions] : undefined;
    const values = Array.isArray(value) && field !== undefined && isScalar(field) ? (value as unknown[]) : [value];
    if (all.length * values.length > MOST_MEMBERS) throw tooMany();
    all = all.flatMap((before) => values.map((each) => ({ ...before, [name]: each })));
  }
  return all;
}

export function tooMany(): UsageError {
  return new UsageError(`a sweep trains at most ${MOST_MEMBERS} autoencoders`, { mend: "give fewer values" });
}

/**
 * The autoencoders of a grid file: a JSON list of objects with the names of config files (or of the
 * flags). An object in which an option is a list of values means each of them. Throws
 * UsageError naming the file and the entry.
 */
export function gridFromJson(text: string, where: string): TrainOptions[] {
  let parsed: Json;
  try {
    parsed = parseJsonText(text, where);
  } catch (cause) {
    throw new UsageError(messageOf(cause), { cause });
  }
  if (!Array.isArray(parsed) || parsed.length === 0)
    throw new UsageError("must hold a JSON list of objects, one per autoencoder", { where });
  const all = (parsed as readonly Json[]).flatMap((entry, i) => {
    const at = `${where}, entry ${i + 1}`;
    if (typeof entry !== "object" || entry === null || Array.isArray(entry))
      throw new UsageError("must be an object of options", { where: at });
    const named = Object.entries(entry).map(([name, value]) => [camel(name), value] as const);
    return combinations(Object.fromEntries(named)).map((options) => checkOptions(options, at, snake));
  });
  if (all.length > MOST_MEMBERS) throw tooMany();
  return all;
}

/**
 * The options that members of a sweep must have alike to be compared: "k,latents", or "all" for
 * none. Throws UsageError.
 */
export function alikeFrom(text: string): readonly (keyof TrainOptions)[] {
  if (text === "all") return [];
  return text.split(",").map((each) => {
    const name = camel(each.trim()) as keyof TrainOptions;
    if (Object.hasOwn(FIELDS, name) && mayDiffer(name)) return name;
    throw new UsageError(`--halve names options, such as k,latents, or all; not ${JSON.stringify(each)}`, {
      mend: `give names of options, such as ${flagOf("latents").slice(2)}`,
    });
  });
}
