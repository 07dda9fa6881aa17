/**
 * One writer to a run folder. flock(2) on `runDir/lock`: the kernel frees it when its holder dies,
 * however that happens, so there is no stale lock to judge and no race in taking over; it holds
 * across containers and, on current Linux, over NFS. A file with a process id would need a liveness
 * test, which is wrong across machines and races; a socket is bound to one machine and to 107 bytes
 * of path. Node has no flock, so it is called through koffi.
 */

import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, statSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import koffi from "koffi";
import { LOCK, lockText } from "../run-files/names.ts";
import { messageOf, SaettaError } from "../util/errors.ts";

export interface RunLock {
  /**
   * Why the folder could not be locked though nobody holds it, where the file system has no locks;
   * to be shown as a warning.
   */
  readonly warning: string | undefined;
  release(): void;
}

const LOCK_EX = 2;
const LOCK_NB = 4;

let flock: ((fd: number, operation: number) => number) | undefined;

/** Locks the folder for this process, or throws a SaettaError that names the holder. */
export function lockRun(runDir: string): RunLock {
  const path = join(runDir, LOCK);
  if (process.platform === "win32")
    return { warning: `${path}: not locked, this system has no flock`, release: () => undefined };
  const { fd, warning } = lockedFile(path, runDir);
  try {
    ftruncateSync(fd);
    writeSync(fd, lockText(process.pid, hostname()));
  } catch {
    // A full disk: the lock holds without its text.
  }
  let held = true;
  return {
    warning,
    release() {
      if (held) closeSync(fd);
      held = false;
    },
  };
}

function lockedFile(path: string, runDir: string): { readonly fd: number; readonly warning: string | undefined } {
  flock ??= koffi.load(null).func("int flock(int fd, int operation)") as (fd: number, operation: number) => number;
  while (true) {
    let fd: number;
    try {
      fd = openSync(path, "a"); // close-on-exec, as all files of Node: a child does not keep the lock
    } catch (cause) {
      throw new SaettaError(`could not be written (${messageOf(cause)})`, {
        where: path,
        cause,
        mend: "choose a folder that you may write to",
      });
    }
    if (flock(fd, LOCK_EX | LOCK_NB) !== 0) {
      const code = koffi.errno();
      if (code !== koffi.os.errno.EAGAIN) {
        return {
          fd,
          warning: `${path}: not locked, this file system has no locks (error ${code}); take care that only one process writes to the run`,
        };
      }
      closeSync(fd);
      const holder = holderOf(path);
      throw new SaettaError(`another process is writing to this run${holder === "" ? "" : ` (${holder})`}`, {
        where: runDir,
        mend: "wait for it to end, or stop it",
      });
    }
    // A run that did not begin takes its lock file away with it; whoever had opened that one holds
    // a lock that nobody else sees.
    if (isAt(fd, path)) return { fd, warning: undefined };
    closeSync(fd);
  }
}

function holderOf(path: string): string {
  try {
    return readFileSync(path, "utf8").trim().slice(0, 200);
  } catch {
    return ""; // gone since
  }
}

function isAt(fd: number, path: string): boolean {
  const [held, found] = [fstatSync(fd, { bigint: true }), statSync(path, { bigint: true, throwIfNoEntry: false })];
  return found !== undefined && held.ino === found.ino && held.dev === found.dev;
}
