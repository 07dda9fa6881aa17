/** A file of a repo into the cache: resumed, verified, once for all processes. */

import { createHash } from "node:crypto";
import { constants, createReadStream } from "node:fs";
import { type FileHandle, open, rename, rm, stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { formatBytes } from "../util/bytes.ts";
import { FormatError, messageOf, SaettaError } from "../util/errors.ts";
import { type HubAddress, hubPath } from "./address.ts";
import { withBlobLock } from "./blob-lock.ts";
import { blobPath, keepRef, linkBlob, lockPath, makeInside, snapshotPath, tagCache, unique } from "./cache.ts";
import { type Answer, ask, backoff, escapedPath, type Hub, networkWords } from "./hub.ts";

/** A file at a commit. */
export interface AtCommit {
  readonly address: HubAddress;
  /** The commit that the address' revision is. */
  readonly commit: string;
}

/** Where the content of a file is read. */
export function fileUrl(hub: Hub, { address: { kind, name, path }, commit }: AtCommit): string {
  return `${hub.endpoint}/${kind === "dataset" ? "datasets/" : ""}${name}/resolve/${commit}/${escapedPath(path)}`;
}

/**
 * The path of the file in the cache, fetched first where it is not there. Rejects with HubError
 * where the Hub has no such file or refuses it, SaettaError when it cannot be fetched or written.
 */
export async function fetchFile(hub: Hub, file: AtCommit): Promise<string> {
  const { address, commit } = file;
  const { cache } = hub;
  const pointer = snapshotPath(cache, address, commit, address.path);
  if ((await stat(pointer).catch(() => undefined))?.isFile()) {
    // The cache may be one that only others write to.
    await keepRef(cache, address, address.revision, commit).catch(() => undefined);
    return pointer;
  }
  const { etag, size } = await headOf(hub, file);
  const blob = blobPath(cache, address, etag);
  await makeInside(cache, address, dirname(blob));
  await tagCache(cache);
  await keepRef(cache, address, address.revision, commit);
  await withBlobLock(hub, lockPath(cache, address, etag), hubPath(address), async (locked) => {
    if (!(await stat(blob).catch(() => undefined))?.isFile()) {
      // Without a lock another process may write at the same time.
      const partial = `${blob}${locked ? "" : `.${unique()}`}.incomplete`;
      await download(hub, file, { etag, size, partial });
      await rename(partial, blob);
    }
    await linkBlob(cache, address, blob, pointer);
  });
  return pointer;
}

/** ETag and size of a file; the Hub says them before it sends on to where the content is. */
async function headOf(hub: Hub, file: AtCommit): Promise<{ readonly etag: string; readonly size: number }> {
  const { address } = file;
  const answer = await ask(hub, fileUrl(hub, file), {
    method: "HEAD",
    address,
    isAnswer: ({ headers }) => headers.has("x-linked-etag"),
  });
  await answer.close();
  const etag = (answer.header("x-linked-etag") ?? answer.header("etag") ?? "").replace(/^W\//, "").replaceAll('"', "");
  const size = Number(answer.header("x-linked-size") ?? answer.response.headers.get("content-length") ?? Number.NaN);
  if (etag !== "" && Number.isSafeInteger(size) && size >= 0) return { etag, size };
  throw new FormatError(`the answer has no ${etag === "" ? "ETag" : "length"}`, {
    where: hubPath(address),
    mend: "check that HF_ENDPOINT names a Hugging Face Hub",
  });
}

interface Wanted {
  readonly etag: string;
  readonly size: number;
  /** The file that is written to; what an earlier try left in it is kept. */
  readonly partial: string;
}

async function download(hub: Hub, file: AtCommit, wanted: Wanted): Promise<void> {
  const { size, partial, etag } = wanted;
  const where = hubPath(file.address);
  for (let again = false; ; again = true) {
    const handle = await open(partial, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o666).catch(
      (cause: unknown) => {
        throw new SaettaError(`cannot be written (${messageOf(cause)})`, { where: partial, cause });
      },
    );
    let start: number;
    try {
      const there = (await handle.stat()).size;
      start = there > size ? 0 : there;
      await handle.truncate(start);
      await checkSpace(partial, size - start);
      await receive(hub, file, wanted, handle, start);
      await handle.sync();
    } finally {
      await handle.close();
    }
    const found = await hashOf(partial, etag, size);
    if (found === undefined || found === etag) return;
    await rm(partial, { force: true });
    // What was there before may have been of something else.
    if (start > 0 && !again) continue;
    throw new FormatError(`what came has the hash ${found}, but the Hub says ${etag}; it was not kept`, {
      where,
      mend: "try again",
    });
  }
}

/** Times that nothing came at all before the file is given up. */
const MOST_STALLS = 5;

/** Writes the rest of the file from byte `start` on, over as many connections as it takes. */
async function receive(hub: Hub, file: AtCommit, wanted: Wanted, handle: FileHandle, start: number): Promise<void> {
  const { size } = wanted;
  const { address } = file;
  let at = start;
  let why = "";
  for (let stalls = 0; at < size; ) {
    const answer = await ask(hub, fileUrl(hub, file), {
      address,
      headers: at > 0 ? { range: `bytes=${at}-` } : {},
      accept: [416],
    });
    const before = at;
    at = startOf(answer, at, size, hubPath(address));
    if (at < 0) {
      await answer.close();
      throw new FormatError(`the Hub says ${size} bytes, and sends another number`, {
        where: hubPath(address),
        mend: "try again",
      });
    }
    if (at !== before) await handle.truncate(at);
    try {
      for await (const chunk of chunksOf(answer, hub.patience)) {
        if (at + chunk.length > size)
          throw new FormatError(`more than the ${size} bytes came that the Hub says`, { where: hubPath(address) });
        for (let done = 0; done < chunk.length; )
          done += (await handle.write(chunk, done, chunk.length - done, at + done)).bytesWritten;
        at += chunk.length;
        hub.observer.progress(address.path, at, size);
      }
      why = "the connection ended";
    } catch (thrown) {
      if (thrown instanceof SaettaError || isDisk(thrown)) throw thrown;
      why = networkWords(thrown);
    }
    if (at >= size) return;
    stalls = at > before ? 0 : stalls + 1;
    if (stalls >= MOST_STALLS)
      throw new SaettaError(`${why} after ${at} of ${size} bytes`, {
        where: hubPath(address),
        mend: "try again: what came is kept",
      });
    await hub.sleep(backoff(stalls));
  }
}

/** The byte that an answer begins with; -1 where it is not of a file of this size. */
function startOf({ response: { status, headers } }: Answer, asked: number, size: number, where: string): number {
  if (status === 416) return asked > 0 ? 0 : -1;
  if (status !== 206) {
    const length = headers.get("content-length");
    return length === null || headers.has("content-encoding") || Number(length) === size ? 0 : -1;
  }
  const [, first, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get("content-range") ?? "") ?? [];
  if (Number(first) === asked && (total === "*" || Number(total) === size)) return asked;
  if (Number(first) === asked) return -1;
  throw new FormatError(`other bytes came than those from ${asked} on`, { where, mend: "try again" });
}

/** The body of an answer. Throws when nothing comes for `patience` seconds. */
async function* chunksOf({ response }: Answer, patience: number): AsyncGenerator<Uint8Array> {
  if (response.status === 416) {
    await response.body?.cancel();
    return;
  }
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  try {
    while (true) {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new DOMException("", "TimeoutError")), patience * 1000);
      });
      const { done, value } = await Promise.race([reader.read(), late]).finally(() => clearTimeout(timer));
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** An error of the disk, as opposed to the network: it names a call on a file. */
function isDisk(thrown: unknown): boolean {
  const { syscall } = thrown as { readonly syscall?: unknown };
  return typeof syscall === "string" && ["write", "ftruncate", "open", "fsync"].includes(syscall);
}

async function checkSpace(path: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(dirname(path));
  const free = bavail * bsize;
  if (free >= bytes) return;
  throw new SaettaError(`${formatBytes(bytes)} more are needed, and ${formatBytes(free)} are free`, {
    where: dirname(path),
    mend: "make room, or name another cache with HF_HUB_CACHE",
  });
}

/**
 * The hash of the file's content of the kind that the ETag is: SHA-256 of large files, the name of
 * a git blob of others. undefined for an ETag of no known kind.
 */
async function hashOf(path: string, etag: string, size: number): Promise<string | undefined> {
  const large = /^[0-9a-f]{64}$/.test(etag);
  if (!large && !/^[0-9a-f]{40}$/.test(etag)) return undefined;
  const hash = createHash(large ? "sha256" : "sha1");
  if (!large) hash.update(`blob ${size}\0`);
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Uint8Array);
  return hash.digest("hex");
}
