/**
 * Reading the files of run folders while somebody writes them, and whatever else may lie in their
 * place.
 */

import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { hasCode } from "../util/errors.ts";

/**
 * No link is followed, so that a run folder that somebody sent shows nothing but itself; a pipe in
 * a file's place blocks nobody.
 */
const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/**
 * Opens a regular file. Undefined when it is not there; throws when it is something else, or may
 * not be read.
 */
export async function openPlain(path: string): Promise<FileHandle | undefined> {
  let file: FileHandle;
  try {
    file = await open(path, FLAGS);
  } catch (thrown) {
    if (hasCode(thrown, "ENOENT", "ENOTDIR")) return undefined;
    if (hasCode(thrown, "ELOOP")) throw new Error("is a link, which is not followed", { cause: thrown });
    throw thrown;
  }
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw new Error("is not a regular file");
}

/** The text of a file of at most `most` bytes; undefined when it is not there. */
export async function readSmall(path: string, most: number): Promise<string | undefined> {
  const file = await openPlain(path);
  if (file === undefined) return undefined;
  try {
    const { size } = await file.stat();
    if (size > most) throw new Error(`has ${size} bytes, more than ${most}`);
    const bytes = Buffer.alloc(size);
    const { bytesRead } = await file.read(bytes, 0, size, 0);
    return bytes.toString("utf8", 0, bytesRead);
  } finally {
    await file.close();
  }
}

/** The whole lines within the last `most` bytes of a file; none when it is not there. */
export async function lastLines(path: string, most: number): Promise<string[]> {
  const file = await openPlain(path);
  if (file === undefined) return [];
  try {
    const { size } = await file.stat();
    const bytes = Buffer.alloc(Math.min(size, most));
    const { bytesRead } = await file.read(bytes, 0, bytes.length, size - bytes.length);
    const lines = bytes.toString("utf8", 0, bytesRead).split("\n");
    return lines.slice(size > most ? 1 : 0, -1); // what stands after the last line feed is still being written
  } finally {
    await file.close();
  }
}

/** The object that a line of JSON holds; undefined for anything else. */
export function objectOf(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}
