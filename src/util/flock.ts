/**
 * flock(2) through koffi, since Node has none. The kernel frees the lock when its holder dies,
 * however that happens, so there is no stale lock to judge.
 */

import { fstatSync, statSync } from "node:fs";
import koffi from "koffi";

const LOCK_EX = 2;
const LOCK_NB = 4;

let flock: ((fd: number, operation: number) => number) | undefined;

/** Whether this system has locks at all; the file system may still have none. */
export const HAS_FLOCK = process.platform !== "win32";

/**
 * Takes the exclusive lock of an open file until the file is closed. "taken": another has it; a
 * number: the file system has no locks, and says so with this error.
 */
export function tryFlock(fd: number): "locked" | "taken" | number {
  flock ??= koffi.load(null).func("int flock(int fd, int operation)") as (fd: number, operation: number) => number;
  if (flock(fd, LOCK_EX | LOCK_NB) === 0) return "locked";
  const code = koffi.errno();
  return code === koffi.os.errno.EAGAIN ? "taken" : code;
}

/**
 * Whether the path still names the open file: the holder of a lock may have taken the file away
 * before it let go, and the lock of that one is seen by nobody else.
 */
export function isAt(fd: number, path: string): boolean {
  const [held, found] = [fstatSync(fd, { bigint: true }), statSync(path, { bigint: true, throwIfNoEntry: false })];
  return found !== undefined && held.ino === found.ino && held.dev === found.dev;
}
