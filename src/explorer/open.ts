/** Opens a features file on disk. */

import type { FileHandle } from "node:fs/promises";
import { openToRead } from "../formats/open-file.ts";
import { readFully, uint32Of } from "../util/bytes.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError } from "../util/errors.ts";
import { type FeatureIndex, inflateJson, MAGIC, TRAILER, VERSION } from "./shared/format.ts";

export interface FeatureFile {
  readonly index: FeatureIndex;
  /** A chunk as stored. Rejects with FormatError when there is none of that name. */
  read(name: string): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/**
 * Opens a file and checks that its index is one and its chunks lie in it. Throws FormatError or
 * SaettaError.
 */
export async function openFeatures(path: string): Promise<FeatureFile> {
  const { handle, size } = await openToRead(path);
  return closedOnFailure(handle, async () => {
    const index = await readIndex(handle, size, path);
    return {
      index,
      async read(name) {
        const place = Object.hasOwn(index.chunks, name) ? index.chunks[name] : undefined;
        if (place === undefined) throw new FormatError(`has no chunk "${name}"`, { where: path });
        const bytes = new Uint8Array(place[1]);
        await readFully(handle, bytes, place[0], path);
        return bytes;
      },
      close: () => handle.close(),
    };
  });
}

async function readIndex(file: FileHandle, size: number, path: string): Promise<FeatureIndex> {
  const refuse = (what: string): never => {
    throw new FormatError(`${what}: this is no whole features file`, {
      where: path,
      mend: "make it again with saetta report",
    });
  };
  if (size < MAGIC.length + TRAILER) refuse(`has only ${size} bytes`);
  const ends = new Uint8Array(MAGIC.length + TRAILER);
  await readFully(file, ends.subarray(0, MAGIC.length), 0, path);
  await readFully(file, ends.subarray(MAGIC.length), size - TRAILER, path);
  const text = Buffer.from(ends).toString("latin1");
  if (!text.startsWith(MAGIC) || !text.endsWith(MAGIC)) refuse(`does not begin and end with ${MAGIC}`);
  const [length = 0] = uint32Of(ends.subarray(MAGIC.length, MAGIC.length + 4));
  const begin = size - TRAILER - length;
  if (begin < MAGIC.length) refuse(`states an index of ${length} bytes, but has only ${size}`);
  const bytes = new Uint8Array(length);
  await readFully(file, bytes, begin, path);
  const index = (await inflateJson(bytes, path)) as Partial<FeatureIndex> | null;
  if (index?.version !== VERSION) refuse(`has version ${String(index?.version)}, not ${VERSION}`);
  for (const [name, place] of Object.entries(index?.chunks ?? {})) {
    const [at, count] = Array.isArray(place) ? place.map(Number) : [];
    const isInside =
      Number.isSafeInteger(at) &&
      Number.isSafeInteger(count) &&
      at! >= MAGIC.length &&
      count! >= 0 &&
      at! + count! <= begin;
    if (!isInside) refuse(`chunk "${name}" does not lie in the file`);
  }
  return index as FeatureIndex;
}
