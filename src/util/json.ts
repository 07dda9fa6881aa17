/**
 * JSON from files, read strictly: bounded in size and depth, valid UTF-8, no name twice in one
 * object (readers disagree on which of the two counts). Then typed fields, each refused in one line
 * that names the file and the field.
 */

import { constants, open } from "node:fs/promises";
import { readFully } from "./bytes.ts";
import { FormatError, hasCode, messageOf } from "./errors.ts";

export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [name: string]: Json;
}

const MAX_DEPTH = 64;

/** The JSON value of `bytes`. `where` names the file in errors. */
export function parseJson(bytes: Uint8Array, where: string): Json {
  return parseJsonText(decodeUtf8(bytes, where), where);
}

function decodeUtf8(bytes: Uint8Array, where: string): string {
  try {
    // Leaves out a byte order mark at the start, which editors of Windows write.
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    const isUtf16 = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
    if (isUtf16) throw new FormatError("is UTF-16, not UTF-8", { where, mend: "save it as UTF-8", cause });
    throw new FormatError("not valid UTF-8", { where, cause });
  }
}

/** The JSON value of text that was read already. */
export function parseJsonText(text: string, where: string): Json {
  let value: Json;
  try {
    value = JSON.parse(text) as Json;
  } catch (cause) {
    throw new FormatError(`not valid JSON (${messageOf(cause)})`, { where, cause });
  }
  checkNames(text, where);
  return value;
}

/** What a JSON file may have unless its reader knows better. */
export const MAX_JSON_BYTES = 16 * 1024 * 1024;

/** The JSON value of a file of at most `maxBytes`. */
export async function readJsonFile(path: string, maxBytes = MAX_JSON_BYTES): Promise<Json> {
  return parseJson(await readBounded(path, maxBytes), path);
}

/** The text of a small file, such as one that `parseJsonText` takes apart later. */
export async function readTextFile(path: string, maxBytes = MAX_JSON_BYTES): Promise<string> {
  return decodeUtf8(await readBounded(path, maxBytes), path);
}

/**
 * All of a file of at most `maxBytes`, which is `kind`. Throws FormatError when it is missing,
 * larger, or no file (a pipe would be waited for for ever); `mend`: what to do when it cannot be
 * opened.
 */
export async function readBounded(
  path: string,
  maxBytes: number,
  kind = "such a file",
  mend?: string,
): Promise<Uint8Array> {
  const about = { where: path, ...(mend === undefined ? {} : { mend }) };
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause: unknown) => {
    throw new FormatError(hasCode(cause, "ENOENT") ? "the file is missing" : `cannot be opened (${messageOf(cause)})`, {
      ...about,
      cause,
    });
  });
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw new FormatError("not a file", about);
    const { size } = stats;
    if (size > maxBytes)
      throw new FormatError(`${size} bytes, more than the ${maxBytes} that ${kind} may have`, { where: path });
    const bytes = new Uint8Array(size);
    await readFully(file, bytes, 0, path);
    return bytes;
  } finally {
    await file.close();
  }
}

/**
 * Walks text that is known to be JSON: refuses a repeated name and nesting deeper than MAX_DEPTH.
 * No regular expression: strings may be megabytes long.
 */
function checkNames(text: string, where: string): void {
  const open: (Set<string> | undefined)[] = []; // names seen in each open object; undefined for an array
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === "{" || char === "[") {
      if (open.length === MAX_DEPTH)
        throw new FormatError(`JSON nested deeper than ${MAX_DEPTH} (character ${at})`, { where });
      open.push(char === "{" ? new Set() : undefined);
    } else if (char === "}" || char === "]") {
      open.pop();
    } else if (char === '"') {
      const start = at++;
      for (; text[at] !== '"'; at++) if (text[at] === "\\") at++;
      const names = open.at(-1);
      if (names === undefined || !isName(text, at + 1)) continue;
      const name = JSON.parse(text.slice(start, at + 1)) as string;
      if (names.has(name))
        throw new FormatError(`the name ${JSON.stringify(name)} stands twice in one JSON object (character ${start})`, {
          where,
        });
      names.add(name);
    }
  }
}

function isName(text: string, end: number): boolean {
  let at = end;
  while (at < text.length && " \t\r\n".includes(text[at]!)) at++;
  return text[at] === ":";
}

/** The value as an object, or a FormatError. `what` names the value in errors. */
export function asObject(value: Json | undefined, what: string, where: string): JsonObject {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new FormatError(`${what} is not a JSON object`, { where });
  return value as JsonObject;
}

/** Reads the fields of one object; each error names the file and the field. */
export class Fields {
  readonly object: JsonObject;
  readonly where: string;

  constructor(value: Json | undefined, what: string, where: string) {
    this.object = asObject(value, what, where);
    this.where = where;
  }

  has(name: string): boolean {
    return Object.hasOwn(this.object, name) && this.object[name] !== null;
  }

  get(name: string): Json | undefined {
    return Object.hasOwn(this.object, name) ? this.object[name] : undefined;
  }

  /** A whole number from `least` up. */
  integer(name: string, least = 0): number {
    const value = this.get(name);
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < least)
      this.#refuse(name, `a whole number of at least ${least}`);
    return value;
  }

  number(name: string): number {
    const value = this.get(name);
    if (typeof value !== "number" || !Number.isFinite(value)) this.#refuse(name, "a finite number");
    return value;
  }

  /** A list of finite numbers. */
  numbers(name: string): readonly number[] {
    const value = this.get(name);
    if (Array.isArray(value) && value.every((each) => typeof each === "number" && Number.isFinite(each)))
      return value as readonly number[];
    this.#refuse(name, "a list of numbers");
  }

  /** A list of whole numbers of at least 0. */
  integers(name: string): readonly number[] {
    const value = this.numbers(name);
    if (value.every((each) => Number.isSafeInteger(each) && each >= 0)) return value;
    this.#refuse(name, "a list of whole numbers");
  }

  boolean(name: string, byDefault?: boolean): boolean {
    const value = this.get(name) ?? byDefault;
    if (typeof value !== "boolean") this.#refuse(name, "true or false");
    return value;
  }

  string(name: string): string {
    const value = this.get(name);
    if (typeof value !== "string") this.#refuse(name, "a string");
    return value;
  }

  fields(name: string): Fields {
    return new Fields(this.get(name), `"${name}"`, this.where);
  }

  #refuse(name: string, must: string): never {
    const value = this.get(name);
    const found = value === undefined ? "missing" : JSON.stringify(value).slice(0, 60);
    throw new FormatError(`"${name}" must be ${must}, but is ${found}`, { where: this.where });
  }
}

/** The same with the names of objects in snake_case, as in every JSON that Saetta prints. */
export function snakeCase(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(snakeCase);
  if (typeof value !== "object" || value === null) return value;
  const renamed = Object.entries(value).map(([name, inner]) => [
    name.replace(/[A-Z]/g, (capital) => `_${capital.toLowerCase()}`),
    snakeCase(inner),
  ]);
  return Object.fromEntries(renamed);
}
