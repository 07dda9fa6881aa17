/**
 * Copies of a run's metrics where people keep theirs. The run folder is what counts: nothing reads
 * these, and nothing that happens to them reaches the run.
 */

import { messageOf } from "../util/errors.ts";
import { PATIENCE_MS, within } from "./log-file.ts";
import type { LogLine, RunLog } from "./run-log.ts";
import { openTensorboard } from "./tensorboard.ts";
import { openWandb } from "./wandb.ts";

export interface RunLogOptions {
  /** The run folder. */
  readonly dir: string;
  /** The step that the run goes on from; 0 for a new one. */
  readonly from: number;
  /** The lines before that step. */
  readonly earlier: AsyncIterable<LogLine>;
  readonly tensorboard: boolean;
  /** Name of the W&B project; undefined: none. */
  readonly wandb: string | undefined;
  /** The run's name, and every choice made. */
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly onNote: (note: string) => void;
}

/**
 * The logs that were asked for, opened in the background. One that cannot be opened is told of, and
 * left out.
 */
export function openRunLogs({ dir, from, earlier, tensorboard, wandb, name, config, onNote }: RunLogOptions): RunLog {
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
    ...(wandb === undefined
      ? []
      : [attempt("W&B's offline run", openWandb(dir, { project: wandb, name, config }, earlier, options), tell)]),
  ];
  return {
    append: (line) => {
      for (const log of logs) log.then((it) => it?.append(line)).catch(() => undefined);
    },
    close: async (exitCode) => {
      for (const log of logs) {
        const opened = await within(PATIENCE_MS, log);
        if (opened !== "late") await opened?.close(exitCode);
      }
    },
  };
}

async function attempt(
  what: string,
  opening: Promise<RunLog>,
  tell: (note: string) => void,
): Promise<RunLog | undefined> {
  try {
    return await opening;
  } catch (thrown) {
    tell(`${what} cannot be made (${messageOf(thrown)}); the run goes on without it`);
    return undefined;
  }
}
