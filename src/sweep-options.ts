/**
 * Options that are lists: one autoencoder for each combination of their values, trained from one
 * read (`saetta train acts.h5 --k 16,32 --lr 3e-4,1e-3`).
 */

import { CHANGEABLE, FIELDS, type TrainOptions } from "./config.ts";
import type { Field } from "./option-values.ts";
import { UsageError } from "./util/errors.ts";

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

/** Whether members of a sweep may have different values of the option: it changes what is trained. */
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
