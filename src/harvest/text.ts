/**
 * The documents of a text file, one at a time, so that a file of any size takes the memory of its
 * longest document.
 */

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import { FormatError, hasCode, messageOf, SaettaError } from "../util/errors.ts";

/**
 * Characters of the longest document. A file without the separators it should have ends here and
 * not in all memory.
 */
export const MAX_DOCUMENT = 8 * 1024 * 1024;

/**
 * The documents of a UTF-8 file, never empty: separated by blank lines; or the "text" of each line
 * of a .jsonl file. Either may be compressed (.gz). Throws SaettaError when the file cannot be read
 * and FormatError when it is damaged or is not text.
 */
export async function* documentsOf(path: string): AsyncGenerator<string> {
  const isJson = /\.jsonl(\.gz)?$/i.test(path);
  let number = 0;
  const documents = new Paragraphs();
  for await (const line of linesOf(path)) {
    number++;
    if (isJson) {
      if (line.trim() !== "") yield textOfJson(line, `${path}, line ${number}`);
      continue;
    }
    const document = documents.add(line);
    if (document !== undefined) yield document;
    if (documents.length > MAX_DOCUMENT) throw tooLong(path);
  }
  const last = documents.end();
  if (last !== undefined) yield last;
}

/** The documents of a text in memory: those that `documentsOf` has of a file with this text. */
export function documentsIn(text: string): string[] {
  const documents = new Paragraphs();
  const lines = text.replace(/^\ufeff/, "").split(/\r?\n/);
  return [...lines.map((line) => documents.add(line)), documents.end()].filter((each) => each !== undefined);
}

/** Joins lines to documents, which blank lines separate. */
class Paragraphs {
  #lines: string[] = [];
  /** Characters of the document that is not complete yet. */
  length = 0;

  /** Returns the document that a blank line completes; undefined where it completes none. */
  add(line: string): string | undefined {
    if (line.trim() === "") return this.end();
    this.#lines.push(line);
    this.length += line.length + 1;
    return undefined;
  }

  /** The document that no blank line follows; undefined where there is none. */
  end(): string | undefined {
    const document = this.#lines.length > 0 ? this.#lines.join("\n") : undefined;
    this.#lines = [];
    this.length = 0;
    return document;
  }
}

/** The lines of a file, without their ends (\n or \r\n). */
async function* linesOf(path: string): AsyncGenerator<string> {
  let rest = "";
  for await (const text of textOf(path)) {
    const lines = text.split("\n");
    lines[0] = rest + lines[0]; // before the split, a line over many reads would be searched anew at each
    rest = lines.pop() ?? "";
    if (rest.length > MAX_DOCUMENT) throw tooLong(path);
    for (const line of lines) yield line.endsWith("\r") ? line.slice(0, -1) : line;
  }
  if (rest !== "") yield rest;
}

async function* textOf(path: string): AsyncGenerator<string> {
  const isCompressed = /\.gz$/i.test(path);
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let done = 0;
  const decode = (bytes: Uint8Array, stream: boolean): string => {
    try {
      return decoder.decode(bytes, { stream });
    } catch (cause) {
      throw new FormatError(
        `not UTF-8 text between bytes ${done} and ${done + bytes.length}${isCompressed ? " of what it holds" : ""}`,
        {
          where: path,
          mend: "convert it, as with iconv -t UTF-8",
          cause,
        },
      );
    }
  };
  try {
    const file = createReadStream(path, { highWaterMark: 1 << 18 });
    // pipeline hands an error of the file on to the loop below, and closes the file when the loop
    // is left.
    const bytes: AsyncIterable<Uint8Array> = isCompressed ? pipeline(file, createGunzip(), () => {}) : file;
    for await (const chunk of bytes) {
      yield decode(chunk, true);
      done += chunk.length;
    }
  } catch (cause) {
    if (cause instanceof SaettaError) throw cause;
    if (hasCode(cause, "Z_BUF_ERROR", "Z_DATA_ERROR"))
      throw new FormatError(`not a whole gzip file (${messageOf(cause)})`, { where: path, cause });
    throw new SaettaError(`cannot be read (${messageOf(cause)})`, { where: path, cause });
  }
  yield decode(new Uint8Array(0), false);
}

/** Throws SaettaError when the file cannot be read, is no file or is empty. */
export async function checkText(path: string): Promise<void> {
  const found = await stat(path).catch((cause: unknown) => {
    const what = hasCode(cause, "ENOENT") ? "there is no such file" : `cannot be read (${messageOf(cause)})`;
    throw new SaettaError(what, { where: path, mend: "name a text file", cause });
  });
  if (!found.isFile()) throw new SaettaError("not a file", { where: path, mend: "name a text file" });
  if (found.size === 0) throw new SaettaError("the file is empty", { where: path, mend: "name a text file" });
}

function textOfJson(line: string, where: string): string {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new FormatError(`not valid JSON (${messageOf(cause)})`, { where, cause });
  }
  const text = typeof value === "object" && value !== null && "text" in value ? value.text : undefined;
  if (typeof text !== "string")
    throw new FormatError('the line has no "text"', { where, mend: 'each line must be {"text": "..."}' });
  return text;
}

function tooLong(path: string): FormatError {
  return new FormatError(`a document of more than ${MAX_DOCUMENT} characters`, {
    where: path,
    mend: "separate documents by blank lines",
  });
}
