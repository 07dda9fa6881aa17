/** Bytes of files on the Hub that are looked at and not kept: headers of weights, small texts. */

import { type FileHandle, open } from "node:fs/promises";
import { readFully } from "../util/bytes.ts";
import { FormatError } from "../util/errors.ts";
import { type HubAddress, hubPath } from "./address.ts";
import { snapshotPath } from "./cache.ts";
import { fileUrl } from "./download.ts";
import { type Answer, ask, type Hub } from "./hub.ts";
import type { Located } from "./locate.ts";

const MOST_TEXT = 1 << 20;

/** A small text at the address' revision. Rejects with HubError where there is none. */
export async function readText(hub: Hub, address: HubAddress): Promise<string> {
  const answer = await ask(hub, fileUrl(hub, { address, commit: encodeURIComponent(address.revision) }), { address });
  return Buffer.from(await bodyOf(answer, MOST_TEXT, address)).toString("utf8");
}

/** The body of an answer, which may have `most` bytes. */
async function bodyOf(answer: Answer, most: number, address: HubAddress): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of answer.response.body ?? []) {
    length += (chunk as Uint8Array).length;
    if (length > most) throw new FormatError(`more than ${most} bytes came`, { where: hubPath(address) });
    chunks.push(chunk as Uint8Array);
  }
  return Buffer.concat(chunks, length);
}

/** The file in the cache; undefined where it is not there. */
async function openToRead(path: string): Promise<FileHandle | undefined> {
  return open(path).catch(() => undefined);
}

async function rangeOf(file: FileHandle, begin: number, end: number, where: string): Promise<Uint8Array> {
  try {
    const bytes = new Uint8Array(end - begin);
    await readFully(file, bytes, begin, where);
    return bytes;
  } finally {
    await file.close();
  }
}

/** A file below what was located, and its size. */
export interface FileBelow {
  readonly path: string;
  readonly bytes: number;
}

/** The files below an address, and ranges of their bytes: a Listing (formats/listing.ts). */
export interface HubListing {
  readonly root: string;
  entries(): Promise<readonly FileBelow[]>;
  readRange(path: string, begin: number, end: number): Promise<Uint8Array>;
}

/** The listing of what was located, by paths relative to its folder. Nothing is kept on disk. */
export function hubListing(hub: Hub, { address, commit, folder, files }: Located): HubListing {
  const prefix = folder === "" ? "" : `${folder}/`;
  return {
    root: hubPath({ ...address, path: folder }),
    entries: () => Promise.resolve(files.map(({ path, bytes }) => ({ path: path.slice(prefix.length), bytes }))),
    async readRange(path, begin, end) {
      const file = { ...address, path: prefix + path };
      const where = hubPath(file);
      const size = files.find((each) => each.path === file.path)?.bytes ?? 0;
      if (end > size) throw new FormatError(`the file ends at byte ${size}, before byte ${end}`, { where });
      if (end === begin) return new Uint8Array();
      const kept = await openToRead(snapshotPath(hub.cache, address, commit, file.path));
      if (kept !== undefined) return rangeOf(kept, begin, end, where);
      const headers = { range: `bytes=${begin}-${end - 1}` };
      const answer = await ask(hub, fileUrl(hub, { address: file, commit }), { address: file, headers });
      const [, first] = /^bytes (\d+)-/.exec(answer.response.headers.get("content-range") ?? "") ?? [];
      // Without ranges all of the file would come.
      if (answer.response.status !== 206 || Number(first) !== begin) {
        await answer.close();
        throw new FormatError("the server has no ranges of files", { where });
      }
      const bytes = await bodyOf(answer, end - begin, file);
      if (bytes.length === end - begin) return bytes;
      throw new FormatError(`${bytes.length} bytes came in place of ${end - begin}`, { where });
    },
  };
}
