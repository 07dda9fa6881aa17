/**
 * The values that an option takes: read from text, and said in words. One home for flags, config
 * files and the library.
 */

import { countInWords, eitherOf, numberInWords } from "./util/must.ts";
import { countOf, numberOf } from "./util/numbers.ts";

/** What JSON Schema says of an option. */
export interface Field {
  readonly type?: string;
  readonly enum?: readonly string[];
  readonly const?: string;
  readonly anyOf?: readonly Field[];
  readonly items?: Field;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly exclusiveMaximum?: number;
  readonly description?: string;
  readonly default?: unknown;
  readonly placeholder?: string;
  /** The value of its flag alone. */
  readonly bare?: string;
}

/** The words that the option takes. */
export function wordsOfField(field: Field): readonly string[] {
  if (field.anyOf) return field.anyOf.flatMap(wordsOfField);
  return field.enum ?? (field.const === undefined ? [] : [field.const]);
}

/** The value that `text` says; `text` itself where it says none of another type. */
export function valueOfText(field: Field, text: string): unknown {
  const kinds = field.anyOf ?? [field];
  if (wordsOfField(field).includes(text)) return text;
  for (const { type, items } of kinds) {
    const value =
      type === "integer"
        ? countOf(text)
        : type === "number"
          ? numberOf(text)
          : type !== "array" || items?.type === "string"
            ? undefined
            : items?.type === "number"
              ? numbersOf(text)
              : listOf(text);
    if (value !== undefined) return value;
  }
  return text;
}

/** "0,1" and "start,2"; one word is no list. */
function listOf(text: string): readonly (number | string)[] | undefined {
  if (!/^(\d{1,15}|[a-z]+,\d{1,15})(,(\d{1,15}|[a-z]+))*$/.test(text)) return undefined;
  return text.split(",").map((each) => (/^\d/.test(each) ? Number(each) : each));
}

/** "0.25,1". */
function numbersOf(text: string): readonly number[] | undefined {
  const values = text.split(",").map(numberOf);
  return values.every((each) => each !== undefined) ? values : undefined;
}

/** "auto or a number above 0". */
export function allowedValues(field: Field): string {
  const parts = (field.anyOf ?? [field]).flatMap((each) => {
    const words = wordsOfField(each);
    return words.length > 0 ? words : [ofType(each)];
  });
  return eitherOf([...new Set(parts)]);
}

function ofType(field: Field): string {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, placeholder } = field;
  switch (field.type) {
    case "integer":
      return countInWords(leastWhole(field), maximum);
    case "number":
      return numberInWords({
        ...(minimum === undefined ? {} : { least: minimum }),
        ...(maximum === undefined ? {} : { most: maximum }),
        ...(exclusiveMinimum === undefined ? {} : { least: exclusiveMinimum, leastExclusive: true }),
        ...(exclusiveMaximum === undefined ? {} : { most: exclusiveMaximum, mostExclusive: true }),
      });
    case "boolean":
      return "true or false";
    case "array":
      return `a list of ${listed(field.items)}`;
    default:
      return `a ${(placeholder ?? "text").toLowerCase()}`;
  }
}

function listed(items: Field | undefined): string {
  if (items?.anyOf) return items.anyOf.map(listed).join(" and ");
  if (items?.type === "string" && wordsOfField(items).length === 0) return "texts";
  if (items?.type === "number") return ofType(items).replace(/^a number/, "numbers");
  if (items?.type === "integer") return `whole numbers of at least ${leastWhole(items)}`;
  return items === undefined ? "values" : wordsOfField(items).join(", ");
}

function leastWhole({ minimum = 0, exclusiveMinimum }: Field): number {
  return exclusiveMinimum === undefined ? minimum : exclusiveMinimum + 1;
}
