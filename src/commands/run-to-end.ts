/**
 * What `train` and `resume` do alike once the ranks are there: a run from its start to its end,
 * shown, and stopped in good order.
 */

import type { Collective } from "../collective/collective.ts";
import type { TrainRun } from "../train/run.ts";
import type { RunOptions } from "../train/train.ts";
import { follow } from "./follow.ts";
import { note, unnoted } from "./note.ts";
import { keepPage, type PageFlags, showRun } from "./page.ts";
import { catchSignals } from "./signals.ts";

export interface RunFlags extends PageFlags {
  readonly json?: boolean;
  readonly nproc?: number;
}

/**
 * Starts a run with `begin` and follows it to its end. Of several ranks the first speaks for all.
 */
export async function runToEnd(
  begin: (about: RunOptions) => Promise<TrainRun>,
  collective: Collective,
  flags: RunFlags,
): Promise<void> {
  const quiet = collective.grid.rank > 0;
  const ending = catchSignals("finishing the step and saving a checkpoint", quiet);
  try {
    const run = await begin({ signal: ending.signal, onNote: quiet ? unnoted : note, collective });
    const page = await showRun(quiet ? undefined : run.out, flags);
    try {
      await follow(run, ending, quiet ? "quiet" : flags.json === true ? "json" : "text");
      await keepPage(page, ending, flags.json === true);
    } finally {
      await page.close();
    }
  } finally {
    ending.close();
  }
}
