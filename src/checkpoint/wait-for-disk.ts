/**
 * What happens when there is no room on the disk: the run stops, or waits until there is. Nothing
 * that was saved before is touched either way.
 */

import { formatBytes } from "../util/bytes.ts";
import { messageOf, SaettaError } from "../util/errors.ts";
import { disk, freeBytes, isDiskFull, type Storage } from "./storage.ts";

/** "stop": the run fails with the error. "wait": it tries again until it succeeds or is stopped. */
export type OnDiskFull = "stop" | "wait";

export interface Waiting {
  readonly onDiskFull: OnDiskFull;
  readonly runDir: string;
  /**
   * Bytes that must be free there before it is tried again: others need what room there is, too.
   */
  readonly needed: number;
  /** Aborted when the run is to end: nothing is waited for then. */
  readonly signal: AbortSignal;
  /** Told once that the run waits, and why. */
  readonly onNote: (note: string) => void;
}

/**
 * What `attempt` resolves to. It is called again after a call found no room, so it must be able to
 * begin anew.
 */
export async function retryWhenFull<T>(
  attempt: () => Promise<T>,
  { onDiskFull, runDir, needed, signal, onNote }: Waiting,
  storage: Storage = disk,
): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      const result = await attempt();
      if (tries > 1) onNote("there is room on the disk again, and the run goes on");
      return result;
    } catch (thrown) {
      if (!isDiskFull(thrown) || onDiskFull === "stop" || signal.aborted) throw thrown;
      if (tries === 1) onNote(`${messageOf(thrown)}; the run waits (--on-disk-full wait)`);
      do await storage.later(signal);
      while (!signal.aborted && ((await freeBytes(runDir)) ?? needed) < needed);
    }
  }
}

/**
 * Returns when `needed` bytes are free where the run folder is, or the system does not say.
 * Otherwise throws SaettaError with both numbers, or waits, as `onDiskFull` says; waiting ends when
 * the signal is aborted, too.
 */
export async function waitForDisk(
  { onDiskFull, runDir, needed, signal, onNote }: Waiting,
  storage: Pick<Storage, "later"> = disk,
  free: (path: string) => Promise<number | undefined> = freeBytes,
): Promise<void> {
  const first = await free(runDir);
  if (first === undefined || first >= needed) return;
  const what = `no room on the disk: a checkpoint needs ${needed} bytes (${formatBytes(needed)}), ${formatBytes(first)} are free`;
  if (onDiskFull === "stop") {
    throw new SaettaError(what, {
      where: runDir,
      mend: "make room, choose another --out, or pass --on-disk-full wait",
    });
  }
  onNote(`${runDir}: ${what}; the run waits (--on-disk-full wait)`);
  while (!signal.aborted && ((await free(runDir)) ?? needed) < needed) await storage.later(signal);
  if (!signal.aborted) onNote("there is room on the disk now, and the run starts");
}
