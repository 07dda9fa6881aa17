/**
 * Weights of an ONNX model that are in other files next to it
 * (https://github.com/onnx/onnx/blob/main/docs/ExternalData.md): the way of models above 2 GiB, and
 * what PyTorch writes by default. Only files of the model's own folder are read, or of its
 * repository's cache, and only bytes that they have.
 */

import { createHash, type Hash } from "node:crypto";
import { realpathSync } from "node:fs";
import { realpath } from "node:fs/promises";
import { dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { openToRead } from "../formats/open-file.ts";
import { readFully } from "../util/bytes.ts";
import { FormatError } from "../util/errors.ts";

/**
 * Where a weight's bytes are: [offset, offset + length) of `location`, a path below the model's
 * folder.
 */
export interface ExternalData {
  readonly location: string;
  readonly offset: number;
  readonly length: number;
}

interface Weight {
  readonly name: string;
  readonly external?: ExternalData | undefined;
}

/** Bits per element of the values of TensorProto.DataType; none for strings. */
const BITS: Readonly<Record<number, number>> = {
  ...{ 1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16 },
  ...{ 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2 },
};

/**
 * Checks what a file says of the bytes of a weight of `shape`. Throws FormatError where they cannot
 * be of it, or the file would not be in the model's folder.
 */
export function externalData(
  name: string,
  entries: ReadonlyMap<string, string>,
  shape: readonly number[],
  dtype: number,
  file: string,
): ExternalData {
  const refuse = (what: string): never => {
    throw new FormatError(`the weights of '${name}' ${what}`, { where: file });
  };
  const location = entries.get("location") ?? "";
  if (location === "") refuse("are in another file, whose name is missing");
  const parts = location.split(/[\\/]/);
  const plain = parts.every((part) => part !== "" && part !== "..") && !/[:\0]/.test(location);
  if (!plain) refuse(`are in '${location}', which is not a file of the model's folder`);
  const bytes = Math.ceil((shape.reduce((product, size) => product * size, 1) * (BITS[dtype] ?? Number.NaN)) / 8);
  if (!Number.isSafeInteger(bytes)) refuse("are in another file and of a type or size that cannot be there");
  const number = (key: string, byDefault: number): number => {
    const text = entries.get(key);
    if (text === undefined) return byDefault;
    const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
    return Number.isSafeInteger(value) ? value : refuse(`have the ${key} '${text}', which is no number of bytes`);
  };
  const [offset, length] = [number("offset", 0), number("length", bytes)];
  if (length !== bytes) refuse(`are said to be ${length} bytes, but their shape takes ${bytes}`);
  return { location, offset, length };
}

/** What one read takes. */
const CHUNK = 16 * 1024 * 1024;

/**
 * Makes sure that the folder of the model `file` has all bytes of the weights, and adds them to
 * `hash` where one is given. Throws FormatError where a file is missing, too short or outside the
 * folder by a link.
 */
export async function checkExternalData(weights: Iterable<Weight>, file: string, hash?: Hash): Promise<void> {
  const folder = dirname(file);
  const byFile = new Map<string, { readonly name: string; readonly data: ExternalData }[]>();
  for (const { name, external } of weights) {
    if (external === undefined) continue;
    const path = join(folder, external.location);
    byFile.set(path, [...(byFile.get(path) ?? []), { name, data: external }]);
  }
  for (const [path, parts] of byFile) {
    const { handle, size } = await openToRead(path).catch((cause: unknown) => {
      throw new FormatError(`the file with weights of ${file} cannot be read`, {
        where: path,
        mend: "put it next to the model, under the name that it was saved with",
        cause,
      });
    });
    try {
      if (!(await mayBeRead(path, folder))) {
        throw new FormatError("a link to a file outside the model's folder, which is not followed", {
          where: path,
          mend: "copy the file there: cp -L",
        });
      }
      const buffer = new Uint8Array(hash === undefined ? 0 : CHUNK);
      for (const { name, data } of parts) {
        const end = data.offset + data.length;
        if (end > size) {
          throw new FormatError(`the weights of '${name}' are bytes ${data.offset} to ${end}, but it has ${size}`, {
            where: path,
            mend: "copy it again, whole",
          });
        }
        if (hash === undefined) continue;
        for (let at = data.offset; at < end; at += CHUNK) {
          const part = buffer.subarray(0, Math.min(CHUNK, end - at));
          await readFully(handle, part, at, path);
          hash.update(part);
        }
      }
    } finally {
      await handle.close();
    }
  }
}

/**
 * Whether the file is one of the folder, or a link in it to a blob of the same repository in a
 * cache of Hugging Face: models--ORG--NAME has snapshots/REVISION, the files of which are links
 * into blobs/.
 */
async function mayBeRead(path: string, folder: string): Promise<boolean> {
  const [home, parent, file] = await Promise.all([realpath(folder), realpath(dirname(path)), realpath(path)]);
  if (isBelow(file, home)) return true;
  const repository = repositoryOf(home);
  return (
    repository !== undefined && (parent === home || isBelow(parent, home)) && isBelow(file, join(repository, "blobs"))
  );
}

/** The folder of a repository in a cache that a folder is in. */
function repositoryOf(folder: string): string | undefined {
  return /^.*[\\/]models--[^\\/]+(?=[\\/]snapshots[\\/][^\\/])/.exec(folder)?.[0];
}

/**
 * Where the runtime, which follows no link out of it, looks for the weights of a model, and what
 * comes before their names there.
 */
export function weightsFolder(file: string): { readonly folder: string; readonly prefix: string } {
  const folder = dirname(resolve(file));
  let home: string;
  try {
    home = realpathSync(folder);
  } catch {
    return { folder, prefix: "" };
  }
  const repository = repositoryOf(home);
  return repository === undefined
    ? { folder, prefix: "" }
    : { folder: repository, prefix: `${relative(repository, home).split(sep).join("/")}/` };
}

function isBelow(path: string, folder: string): boolean {
  const inside = relative(folder, path);
  return inside !== "" && inside.split(sep)[0] !== ".." && !isAbsolute(inside);
}

/** SHA-256 of a model: of its file, then of the weights that are elsewhere. */
export async function hashModel(bytes: Uint8Array, weights: Iterable<Weight>, file: string): Promise<string> {
  const hash = createHash("sha256").update(bytes);
  await checkExternalData(weights, file, hash);
  return hash.digest("hex");
}
