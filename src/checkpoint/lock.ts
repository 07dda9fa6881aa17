/**
 * One writer to a run folder: flock(2) on `runDir/lock`, which holds across containers and, on
 * current Linux, over NFS. A file with a process id would need a liveness test, which is wrong
 * across machines and races; a socket is bound to one machine and to 107 bytes of path.
 */

import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { LOCK, lockText } from "../run-files/names.ts";
import { messageOf, SaettaError } from "../util/errors.ts";
import { HAS_FLOCK, isAt, tryFlock } from "../util/flock.ts";

export interface RunLock {
  /**
   * Why the folder could not be locked though nobody holds it, where the file system has no locks;
   * to be shown as a warning.
   */
  readonly warning: string | undefined;
  release(): void;
}

/** Locks the folder for this process, or throws a SaettaError that names the holder. */
export function lockRun(runDir: string): RunLock {
  const path = join(runDir, LOCK);
  if (!HAS_FLOCK) return { warning: `${path}: not locked, this system has no flock`, release: () => undefined };
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
    const taken = tryFlock(fd);
    if (typeof taken === "number") {
      return {
        fd,
        warning: `${path}: not locked, this file system has no locks (error ${taken}); take care that only one process writes to the run`,
      };
    }
    if (taken === "taken") {
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
