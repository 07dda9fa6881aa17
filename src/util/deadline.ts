/**
 * Work that may never end, such as a regular expression that somebody else wrote, ended when it
 * takes too long.
 */

import { createContext, Script } from "node:vm";

/** The work took more time than it may. */
export class DeadlineError extends Error {
  override readonly name = "DeadlineError";
}

/**
 * Node can end what it runs as a script, and what that calls: regular expressions too, which no
 * other check in JavaScript can interrupt.
 */
const script = new Script("work()");
const context = createContext({ work: undefined as unknown });

/**
 * Where the work had less than this share of the time on the processor, the machine was busy, and
 * the work is no worse for it.
 */
const LEAST_SHARE = 0.5;
const TRIES = 5;

/**
 * What `work` returns or throws; DeadlineError when it takes more than `milliseconds`. Work that
 * was short of the processor meanwhile is done again with more time: it must not matter that it was
 * begun before. Costs some 70 microseconds a call; one inside another is not watched.
 */
export function within<T>(milliseconds: number, work: () => T): T {
  for (let left = TRIES, allowed = milliseconds; ; left--, allowed *= 2) {
    const before = process.cpuUsage();
    try {
      return attempt(allowed, work);
    } catch (thrown) {
      if (!(thrown instanceof DeadlineError) || left === 1) throw thrown;
      const { user, system } = process.cpuUsage(before);
      if ((user + system) / 1000 >= milliseconds * LEAST_SHARE) throw thrown;
    }
  }
}

function attempt<T>(milliseconds: number, work: () => T): T {
  const outer = context.work;
  context.work = work;
  try {
    return script.runInContext(context, { timeout: Math.ceil(milliseconds) }) as T;
  } catch (cause) {
    // An error of the context's own kind, no Error of this one.
    if (typeof cause === "object" && cause !== null && "code" in cause && cause.code === "ERR_SCRIPT_EXECUTION_TIMEOUT")
      throw new DeadlineError(`took more than ${milliseconds} ms`, { cause });
    throw cause;
  } finally {
    context.work = outer;
  }
}
