/**
 * The cache that every tool of the Hub shares (hub-docs, "local cache"):
 *
 *     models--org--name/blobs/<etag>               the content of a file, once
 *     models--org--name/refs/<revision>            the commit that a branch or tag was, as text
 *     models--org--name/snapshots/<commit>/<path>  -> ../../blobs/<etag>
 *     .locks/models--org--name/<etag>.lock         held while the blob is fetched
 */

import { randomBytes } from "node:crypto";
import { mkdir, readFile, readlink, realpath, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { hasCode, messageOf, SaettaError } from "../util/errors.ts";
import { makeFolders } from "../util/folders.ts";
import type { Repo } from "./address.ts";
import { isCommit, isSafeEtag, isSafePath } from "./safe-path.ts";

/** The folder of a repo. */
export function repoFolder(cache: string, { kind, name }: Repo): string {
  return join(cache, folderName({ kind, name }));
}

function folderName({ kind, name }: Repo): string {
  return [`${kind}s`, ...name.split("/")].join("--");
}

export function blobPath(cache: string, repo: Repo, etag: string): string {
  if (!isSafeEtag(etag)) throw unsafe(cache, `the ETag ${JSON.stringify(etag.slice(0, 80))}`);
  return join(repoFolder(cache, repo), "blobs", etag);
}

export function lockPath(cache: string, repo: Repo, etag: string): string {
  if (!isSafeEtag(etag)) throw unsafe(cache, `the ETag ${JSON.stringify(etag.slice(0, 80))}`);
  return join(cache, ".locks", folderName(repo), `${etag}.lock`);
}

/** Where a file of a commit is, or its folder where `path` is one; "" for the root. */
export function snapshotPath(cache: string, repo: Repo, commit: string, path: string): string {
  if (!isCommit(commit) || (path !== "" && !isSafePath(path)))
    throw unsafe(cache, `the path ${JSON.stringify(path.slice(0, 200))}`);
  return join(repoFolder(cache, repo), "snapshots", commit, ...path.split("/"));
}

function unsafe(cache: string, what: string): SaettaError {
  return new SaettaError(`${what} would not stay in the cache`, { where: cache, mend: "do not use this repo" });
}

/** The commit that the revision was when it was last asked for; undefined where it never was. */
export async function cachedCommit(cache: string, repo: Repo, revision: string): Promise<string | undefined> {
  if (isCommit(revision)) return revision;
  const text = await readFile(refPath(cache, repo, revision), "utf8").catch(() => "");
  return isCommit(text.trim()) ? text.trim() : undefined;
}

function refPath(cache: string, repo: Repo, revision: string): string {
  if (!isSafePath(revision)) throw unsafe(cache, `the revision ${JSON.stringify(revision.slice(0, 80))}`);
  return join(repoFolder(cache, repo), "refs", ...revision.split("/"));
}

/** A name that no other process has: not its id, which is the same in several containers. */
export function unique(): string {
  return randomBytes(4).toString("hex");
}

/** Notes which commit the revision is. */
export async function keepRef(cache: string, repo: Repo, revision: string, commit: string): Promise<void> {
  if (revision === commit) return;
  const path = refPath(cache, repo, revision);
  if ((await readFile(path, "utf8").catch(() => undefined)) === commit) return;
  await makeInside(cache, repo, dirname(path));
  const aside = `${path}.${unique()}.tmp`;
  await writeFile(aside, commit);
  await rename(aside, path);
}

/**
 * Makes a folder of the repo. Throws SaettaError where a link in it leads out of the repo's folder,
 * so that nothing is written elsewhere.
 */
export async function makeInside(cache: string, repo: Repo, folder: string): Promise<void> {
  const root = repoFolder(cache, repo);
  try {
    await makeFolders(root);
    const home = await realpath(root);
    let at = root;
    for (const part of relative(root, folder).split(sep)) {
      if (part === "") continue;
      at = join(at, part);
      await mkdir(at).catch((thrown: unknown) => {
        if (!hasCode(thrown, "EEXIST")) throw thrown;
      });
      const real = await realpath(at);
      if (real !== join(home, relative(root, at)) || !(await stat(real)).isDirectory())
        throw new SaettaError("is a link or a file where the cache has a folder", {
          where: at,
          mend: "delete it, or name another cache with HF_HUB_CACHE",
        });
    }
  } catch (cause) {
    if (cause instanceof SaettaError) throw cause;
    throw new SaettaError(`the cache cannot be written (${messageOf(cause)})`, {
      where: folder,
      mend: "name another with HF_HUB_CACHE",
      cause,
    });
  }
}

const TAG = "CACHEDIR.TAG";
/** By this file backup programs know a cache; byte for byte what the other tools write. */
const TAG_TEXT = `Signature: 8a477f597d28d172789f06886806bc55
# This file is a cache directory tag created by huggingface_hub.
# For information about cache directory tags, see:
#\thttps://bford.info/cachedir/
`;

/** Marks the cache as one, unless it is marked. */
export async function tagCache(cache: string): Promise<void> {
  await writeFile(join(cache, TAG), TAG_TEXT, { flag: "wx" }).catch(() => undefined);
}

/** Puts the blob at the path of the snapshot: a link that stays right when the cache is moved. */
export async function linkBlob(cache: string, repo: Repo, blob: string, pointer: string): Promise<void> {
  const folder = dirname(pointer);
  await makeInside(cache, repo, folder);
  const target = relative(folder, blob);
  const linked = await symlink(target, pointer).then(
    () => true,
    (cause: unknown) => {
      if (hasCode(cause, "EEXIST")) return false;
      throw new SaettaError(`cannot be put into the cache (${messageOf(cause)})`, { where: pointer, cause });
    },
  );
  if (linked || (await readlink(pointer).catch(() => undefined)) === target) return;
  // Made aside and renamed: a reader in another process never finds it missing.
  const aside = join(repoFolder(cache, repo), `.${unique()}.tmp`);
  await symlink(target, aside);
  await rename(aside, pointer).catch(async (cause: unknown) => {
    await rm(aside, { force: true });
    throw new SaettaError(`cannot be put into the cache (${messageOf(cause)})`, { where: pointer, cause });
  });
}
