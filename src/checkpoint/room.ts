/** What happens when there is no room on the disk: the run stops, or waits until there is. Nothing that was saved before is touched either way. */

import { messageOf } from "../util/errors.ts";
import { disk, freeBytes, isDiskFull, type Storage } from "./storage.ts";

/** "stop": the run fails with the error. "wait": it tries again until it succeeds or is stopped. */
export type OnDiskFull = "stop" | "wait";

export interface Waiting {
  readonly onDiskFull: OnDiskFull;
  readonly runDir: string;
  /** Bytes that must be free there before it is tried again: others need what room there is, too. */
  readonly needed: number;
  /** Aborted when the run is to end: nothing is waited for then. */
  readonly signal: AbortSignal;
  /** Told once that the run waits, and why. */
  readonly onNote: (note: string) => void;
}

/** What `attempt` resolves to. It is called again after a call found no room, so it must be able to begin anew. */
export async function withRoom<T>(
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
