/**
 * The file that goes to a language model and comes back: passages of latents, from which it writes
 * a name, and passages by which the name is scored. The definitions are those of EleutherAI's
 * delphi (https://github.com/EleutherAI/delphi).
 */

import { FormatError } from "../../util/errors.ts";
import { Fields, type Json } from "../../util/json.ts";
import { SCORINGS, type Score, type Scoring } from "./labels.ts";

export const FORMAT = "saetta-interpretation";
export const FORMAT_VERSION = 1;

/** Text of tokens; the latent's value on each. */
export interface Shown {
  readonly tokens: readonly string[];
  readonly values: readonly number[];
}

/** A passage of a test. The reader sees its text, with the marked tokens between << and >>. */
export interface Item {
  readonly tokens: readonly string[];
  /** Numbers of the marked tokens; none in detection. */
  readonly marked: readonly number[];
  /** The right answer. */
  readonly activating: boolean;
  /** Of the reader: whether the name fits the passage, or the marked tokens. */
  readonly answer?: boolean | null;
}

export interface Interpreted extends Readonly<Record<Scoring, readonly Item[]>> {
  readonly latent: number;
  readonly name: string;
  readonly note: string;
  /** The strongest passages, from which the name is to be written. */
  readonly explain: readonly Shown[];
  readonly promoted: readonly string[];
  readonly suppressed: readonly string[];
}

export interface Interpretation {
  readonly format: typeof FORMAT;
  readonly version: typeof FORMAT_VERSION;
  /** As it was named on the command line. */
  readonly autoencoder: string;
  readonly definitions: Readonly<Record<string, string>>;
  readonly latents: readonly Interpreted[];
}

export const DEFINITIONS = {
  explain: "the latent's strongest passages, each from another context, with its value on each token",
  detection:
    "a reader who has only the name says of each passage whether the latent fires in it; half of the passages are drawn from the ranges of its values, half are random ones in which it never fires",
  fuzzing:
    "the same passages; in those where it fires the tokens above 0.3 times the passage's maximum are marked, in the others as many random tokens as are marked on average, rounded up; the reader says whether the marked tokens fit the name",
  accuracy: "(share of right answers where it fires + share of right answers where it does not) / 2",
  precision: "answers of yes that are right / answers of yes",
  recall: "answers of yes where it fires / passages where it fires",
  f1: "2 precision recall / (precision + recall)",
} as const;

/** What the answers are worth; undefined where either kind of passage has none. */
export function scoreOf(items: readonly Item[]): Score | undefined {
  const answered = items.filter((item) => typeof item.answer === "boolean");
  const count = (activating: boolean, answer: boolean) =>
    answered.filter((item) => item.activating === activating && item.answer === answer).length;
  const [hits, misses] = [count(true, true), count(true, false)];
  const [alarms, rejections] = [count(false, true), count(false, false)];
  if (hits + misses === 0 || alarms + rejections === 0) return undefined;
  const recall = hits / (hits + misses);
  const precision = hits + alarms === 0 ? 0 : hits / (hits + alarms);
  return {
    accuracy: (recall + rejections / (alarms + rejections)) / 2,
    precision,
    recall,
    f1: precision + recall === 0 ? 0 : (2 * precision * recall) / (precision + recall),
    passages: answered.length,
  };
}

/** A latent with what came back: its name, its note, and the scores of the name. */
export interface Returned {
  readonly latent: number;
  readonly name: string;
  readonly note: string;
  readonly scores: Readonly<Partial<Record<Scoring, Score>>>;
}

/** Reads what came back. Throws FormatError where it is no such file. */
export function returnedOf(value: Json, where: string): { readonly autoencoder: string; readonly latents: Returned[] } {
  const file = new Fields(value, "the file", where);
  if (file.get("format") !== FORMAT || file.get("version") !== FORMAT_VERSION) {
    throw new FormatError(`is no file of saetta label export (format "${FORMAT}", version ${FORMAT_VERSION})`, {
      where,
      mend: "give the JSON that came back, or a labels.jsonl",
    });
  }
  const latents = listOf(file, "latents").map((each) => {
    const fields = new Fields(each, "a latent", where);
    const scored = SCORINGS.flatMap((scoring) => {
      const items = fields.has(scoring) ? listOf(fields, scoring).map((item) => itemOf(item, where)) : [];
      const score = scoreOf(items);
      return score === undefined ? [] : [[scoring, score] as const];
    });
    const text = (name: string) => (fields.has(name) ? fields.string(name) : "");
    const scores = Object.fromEntries(scored) as Returned["scores"];
    return { latent: fields.integer("latent"), name: text("name"), note: text("note"), scores };
  });
  return { autoencoder: file.has("autoencoder") ? file.string("autoencoder") : "", latents };
}

function itemOf(value: Json, where: string): Item {
  const fields = new Fields(value, "a passage", where);
  const answer = fields.has("answer") ? fields.boolean("answer") : null;
  return { tokens: [], marked: [], activating: fields.boolean("activating"), answer };
}

function listOf(fields: Fields, name: string): readonly Json[] {
  const value = fields.get(name);
  if (!Array.isArray(value)) throw new FormatError(`"${name}" must be a list`, { where: fields.where });
  return value as readonly Json[];
}
