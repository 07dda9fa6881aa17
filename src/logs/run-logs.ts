/** Copies of a run's metrics where people keep theirs. The run folder is what counts: nothing reads these, and nothing that happens to them reaches the run. */

import { messageOf } from "../util/errors.ts";
import type { RunLog } from "./run-log.ts";
import { openTensorboard } from "./tensorboard.ts";
import { openWandb } from "./wandb.ts";

export interface RunLogOptions {
  /** The run folder. */
  readonly dir: string;
  /** The step that the run goes on from; 0 for a new one. */
  readonly from: number;
  readonly tensorboard: boolean;
  /** Name of the W&B project; undefined: none. */
  readonly wandb: string | undefined;
  /** The run's name, and every choice made. */
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly onNote: (note: string) => void;
}

/** The logs that were asked for, opened in the background. One that cannot be opened is told of, and left out. */
export function openRunLogs({ dir, from, tensorboard, wandb, name, config, onNote }: RunLogOptions): RunLog {
  const tell = (note: string): void => {
    try {
      onNote(note);
    } catch {
      // what listens is not ours, and a log stops nothing
    }
  };
  const options = { onNote: tell };
  const logs = [
    ...(tensorboard ? [attempt("TensorBoard's event file", openTensorboard(dir, from, options), tell)] : []),
    ...(wandb === undefined ? [] : [attempt("W&B's offline run", openWandb(dir, { project: wandb, name, config }, options), tell)]),
  ];
  return {
    append: (line) => {
      for (const log of logs) log.then((it) => it?.append(line)).catch(() => undefined);
    },
    close: async (exitCode) => {
      for (const log of logs) await (await log)?.close(exitCode);
    },
  };
}

async function attempt(what: string, opening: Promise<RunLog>, tell: (note: string) => void): Promise<RunLog | undefined> {
  try {
    return await opening;
  } catch (thrown) {
    tell(`${what} cannot be made (${messageOf(thrown)}); the run goes on without it`);
    return undefined;
  }
}
