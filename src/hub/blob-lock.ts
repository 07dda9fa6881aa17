/**
 * One process fetches a blob, whichever tool of the Hub it is: flock(2) on the file in `.locks`.
 */

import { closeSync, constants, fchmodSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { messageOf, SaettaError } from "../util/errors.ts";
import { HAS_FLOCK, isAt, tryFlock } from "../util/flock.ts";
import { makeFolders } from "../util/folders.ts";
import type { Hub } from "./hub.ts";

/** As the Python client makes it: several users may share a cache. */
const MODE = 0o664;
const POLL_SECONDS = 0.1;
const SAID_AFTER_SECONDS = 5;

/**
 * What `use` returns, called while this process holds the lock. `use` is given whether the lock is
 * one: some file systems have none.
 */
export async function withBlobLock<T>(
  hub: Hub,
  path: string,
  name: string,
  use: (locked: boolean) => Promise<T>,
): Promise<T> {
  if (!HAS_FLOCK) return use(false);
  await makeFolders(dirname(path)).catch((cause: unknown) => {
    throw unwritable(path, cause);
  });
  for (let waited = 0; ; ) {
    const fd = opened(path);
    try {
      const taken = tryFlock(fd);
      if (taken === "locked" && !isAt(fd, path)) continue;
      if (taken === "locked") share(fd);
      if (taken !== "taken") return await use(taken === "locked");
    } finally {
      closeSync(fd);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_SECONDS * 1000));
    const before = waited;
    waited += POLL_SECONDS;
    if (before < SAID_AFTER_SECONDS && waited >= SAID_AFTER_SECONDS)
      hub.observer.note(`${name}: another process is fetching it; waiting for that`);
  }
}

function opened(path: string): number {
  try {
    return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, MODE);
  } catch (cause) {
    throw unwritable(path, cause);
  }
}

/** Whatever this user's umask is; it may be the file of another user. */
function share(fd: number): void {
  try {
    fchmodSync(fd, MODE);
  } catch {
    // its owner did
  }
}

function unwritable(path: string, cause: unknown): SaettaError {
  return new SaettaError(`the cache cannot be written (${messageOf(cause)})`, {
    where: path,
    mend: "name another with HF_HUB_CACHE",
    cause,
  });
}
