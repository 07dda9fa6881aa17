/** Paths that are recorded in files, and where those are once folders have been moved. */

import { realpath, stat } from "node:fs/promises";
import { basename, dirname, join, relative, resolve, sep } from "node:path";

/**
 * Paths of the files relative to the folder `dir`, with "/" between their parts. Symbolic links of
 * folders are followed on both sides.
 */
export async function relativeTo(dir: string, paths: readonly string[]): Promise<string[]> {
  const real = (path: string) => realpath(path).catch(() => resolve(path));
  const from = await real(dir);
  return Promise.all(
    paths.map(async (path) => {
      const to = join(await real(dirname(resolve(path))), basename(path));
      return relative(from, to).split(sep).join("/");
    }),
  );
}

/**
 * Where a file that `recordedBy` names `path` may be once both were moved: at `near`, its path
 * relative to the folder of `recordedBy`, or next to `recordedBy`, with its folder or without.
 * Links are not resolved here: `..` of a linked folder is for the system to follow.
 */
export function placesAfterMove(recordedBy: string, path: string, near: string | undefined): string[] {
  const parts = path.split(/[\\/]/);
  const ends = [...(near === undefined ? [] : [near]), parts.slice(-2).join("/"), parts.slice(-1).join("/")];
  return [...new Set(ends)].map((end) => `${dirname(recordedBy)}/${end}`);
}

/** The first of the paths where a file or folder is; undefined where none is. */
export async function firstThere(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) if ((await stat(path).catch(() => undefined)) !== undefined) return path;
  return undefined;
}

/**
 * The first of the paths where a file or folder is, as an absolute path unless it is the first of
 * all; undefined where none is. `onNote` gets a line where it is not the first: `what` says what
 * the file is.
 */
export async function findMoved(
  what: string,
  paths: readonly string[],
  onNote: (note: string) => void,
): Promise<string | undefined> {
  const at = await firstThere(paths);
  if (at === undefined || at === paths[0]) return at;
  const now = join(await realpath(dirname(at)), basename(at));
  onNote(`${paths[0]} is not there any more; ${what} is read from ${now}`);
  return now;
}
