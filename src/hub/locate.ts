/**
 * What an address names: a file, or a folder with its files. Nothing of their content is fetched.
 */

import type { Dirent } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join, posix } from "node:path";
import { SaettaError } from "../util/errors.ts";
import { asObject, parseJson } from "../util/json.ts";
import { type HubAddress, hubPath } from "./address.ts";
import { cachedCommit, snapshotPath } from "./cache.ts";
import { fetchFile } from "./download.ts";
import { apiUrl, ask, type Hub, UnreachedError } from "./hub.ts";
import { HubError } from "./refusals.ts";
import { commitOf, type HubFile, treeOf } from "./tree.ts";

export interface Located {
  readonly address: HubAddress;
  readonly commit: string;
  readonly isFolder: boolean;
  /** The folder that is named, or the one that the file is in; "" for the root. */
  readonly folder: string;
  /**
   * Of a folder every file below it; of a file those next to it too. Offline, or where the Hub
   * cannot be reached, those in the cache.
   */
  readonly files: readonly HubFile[];
  /** Whether `files` are those of the cache. */
  readonly cached: boolean;
  /** Names that were left out of `files` since they would not stay in the cache. */
  readonly unsafe: number;
}

/**
 * Asks the Hub what the address names. Rejects with HubError where it names nothing or may not be
 * seen, SaettaError where the Hub cannot be reached and the cache has nothing of it.
 */
export async function locate(hub: Hub, address: HubAddress): Promise<Located> {
  if (hub.offline) return located(hub, address, await inCache(hub, address));
  try {
    const commit = await commitOf(hub, address);
    const fixed = { ...address, revision: commit };
    const isFolder = address.path === "" || (await isFolderAt(hub, fixed, address));
    const folder = isFolder ? address.path : parentOf(address.path);
    const { files, unsafe } = await treeOf(hub, { ...fixed, path: folder }, isFolder);
    return { address, commit, isFolder, folder, files, cached: false, unsafe };
  } catch (thrown) {
    if (!(thrown instanceof UnreachedError)) throw thrown;
    const found = await inCache(hub, address).catch(() => undefined);
    if (found === undefined) throw thrown;
    hub.observer.note(`${thrown.message}; what is in the cache is used`);
    return located(hub, address, found);
  }
}

const parentOf = (path: string): string => (path.includes("/") ? posix.dirname(path) : "");

/** Throws HubError where the repo has neither a file nor a folder of this name. */
async function isFolderAt(hub: Hub, { path, ...fixed }: HubAddress, address: HubAddress): Promise<boolean> {
  const url = apiUrl(hub, { path, ...fixed }, "paths-info", fixed.revision);
  const answer = await ask(hub, url, {
    ...{ method: "POST", address, body: () => JSON.stringify({ paths: [path] }) },
    headers: { "content-type": "application/json" },
  });
  const found = parseJson(new Uint8Array(await answer.response.arrayBuffer()), url);
  for (const each of Array.isArray(found) ? found : []) {
    const { type, path: named } = asObject(each, "an entry", url);
    if (named === path) return type === "directory";
  }
  throw new HubError("path", "there is no such file or folder in the repo", {
    where: hubPath(address),
    mend: `saetta inspect ${hubPath({ ...address, path: "" })}`,
  });
}

interface InCache {
  readonly commit: string;
  readonly isFolder: boolean;
}

async function inCache(hub: Hub, address: HubAddress): Promise<InCache> {
  const { cache } = hub;
  const commit = await cachedCommit(cache, address, address.revision);
  const path = commit && snapshotPath(cache, address, commit, address.path);
  const found = path && (await stat(path).catch(() => undefined));
  if (commit && found) return { commit, isFolder: found.isDirectory() };
  throw new SaettaError(`is not in the cache (${cache}), and HF_HUB_OFFLINE is set`, {
    where: hubPath(address),
    mend: "unset it to fetch it, or name the cache with HF_HUB_CACHE",
  });
}

async function located(hub: Hub, address: HubAddress, { commit, isFolder }: InCache): Promise<Located> {
  const folder = isFolder ? address.path : parentOf(address.path);
  const root = snapshotPath(hub.cache, address, commit, folder);
  const entries: Dirent[] = await readdir(root, { withFileTypes: true, recursive: isFolder });
  const files: HubFile[] = [];
  for (const entry of entries) {
    if (entry.isDirectory()) continue;
    const at = join(entry.parentPath, entry.name);
    // A link to a blob that is gone.
    const bytes = (await stat(at).catch(() => undefined))?.size;
    if (bytes === undefined) continue;
    const below = at.slice(root.length + 1).replaceAll("\\", "/");
    files.push({ path: folder === "" ? below : `${folder}/${below}`, bytes });
  }
  return { address, commit, isFolder, folder, files, cached: true, unsafe: 0 };
}

/**
 * Fetches files of what was located, unless the cache has them. Returns the path in the cache of
 * what the address names.
 */
export async function fetchInto(hub: Hub, place: Located, files: readonly HubFile[]): Promise<string> {
  const { address, commit } = place;
  if (!place.cached) for (const { path } of files) await fetchFile(hub, { address: { ...address, path }, commit });
  return snapshotPath(hub.cache, address, commit, address.path);
}

/** The name of a file in the folder of what was located: "a/b.npy" of "x/y/a/b.npy" in "x/y". */
export function nameIn({ folder }: Located, { path }: HubFile): string {
  return folder === "" ? path : path.slice(folder.length + 1);
}
