/**
 * Ctrl-C, SIGTERM and Slurm's SIGUSR1: the first ends the work in good order, a second Ctrl-C or
 * SIGTERM ends the process at once.
 */

import { messageOf } from "../util/errors.ts";
import { EXIT_CODES, onSignals } from "../util/signals.ts";

export interface Ending {
  /** Aborted by the first signal. */
  readonly signal: AbortSignal;
  /** 130 after SIGINT, 143 after SIGTERM, 0 after SIGUSR1 or without a signal. */
  readonly exitCode: () => number;
  /** Says what a signal from now on leads to. */
  readonly now: (doing: string) => void;
  /** Stops listening. */
  readonly close: () => void;
}

/**
 * `doing` is told to people: "finishing the step and saving a checkpoint". `quiet`: it is not told,
 * for another rank tells it.
 */
export function catchSignals(doing: string, quiet = false): Ending {
  const controller = new AbortController();
  let [code, does] = [0, doing];
  // By SIGINT or SIGTERM. A scheduler sends SIGTERM some time after SIGUSR1, which is no reason to
  // lose the checkpoint.
  let asked = 0;
  const close = onSignals((name) => {
    if (name !== "SIGUSR1" && asked++ > 0) process.exit(EXIT_CODES[name]);
    if (controller.signal.aborted) return;
    code = EXIT_CODES[name];
    if (!quiet)
      process.stderr.write(`\nsaetta: ${name}: ${does}${name === "SIGINT" ? "; Ctrl-C again ends at once" : ""}\n`);
    controller.abort();
  });
  const now = (next: string) => {
    does = next;
  };
  return { signal: controller.signal, exitCode: () => code, now, close };
}

/**
 * Ends a command whose work a signal stopped, with its line and exit code. Throws `thrown` again
 * where no signal came.
 */
export function endStopped(ending: Ending, thrown: unknown): void {
  if (!ending.signal.aborted) throw thrown;
  process.exitCode = ending.exitCode() || 1;
  process.stderr.write(`saetta: ${messageOf(thrown)}\n`);
}
