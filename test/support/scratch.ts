/** Folders for tests that sync many small files. */

import { accessSync, constants } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/**
 * A new folder, in memory where the system has such a place: what is tested is the order of calls,
 * not the speed of a disk.
 */
export async function scratch(name: string): Promise<string> {
  return mkdtemp(join(inMemory() ? "/dev/shm" : tmpdir(), `saetta-${name}-`));
}

function inMemory(): boolean {
  try {
    accessSync("/dev/shm", constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
