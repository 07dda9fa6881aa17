import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { hasCode } from "./errors.ts";

/**
 * As `mkdir -p`; that of Node goes round for ever where a file system refuses with ENOENT, as /proc
 * does.
 */
export async function makeFolders(path: string): Promise<void> {
  const make = () =>
    mkdir(path).catch(async (thrown: unknown) => {
      if (!hasCode(thrown, "EEXIST") || !(await stat(path)).isDirectory()) throw thrown;
    });
  await make().catch(async (thrown: unknown) => {
    if (!hasCode(thrown, "ENOENT") || dirname(path) === path) throw thrown;
    await makeFolders(dirname(path));
    await make();
  });
}

/** Whether there is a plain file, or a link to one. */
export function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
}
