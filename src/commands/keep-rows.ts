/** `--keep-rows`: what `train` and `resume` read from a stream is also written as files. */

import type { Command } from "commander";
import { KEPT_DTYPES, type KeptDType, type RowKeeper } from "../data/row-keeper.ts";
import { UsageError } from "../util/errors.ts";
import { counted } from "../util/format.ts";
import { choice } from "./flags.ts";
import { note } from "./note.ts";

export interface KeepFlags {
  readonly keepRows?: string;
  readonly keepDtype?: KeptDType;
}

/** Rows that are kept while a run trains on them. */
export interface KeptRows {
  /** undefined where none are kept. */
  readonly keeper: RowKeeper | undefined;
  /** Also aborted when rows cannot be kept any more: the run ends with a checkpoint. */
  signal(of: AbortSignal | undefined): AbortSignal | undefined;
  /** Makes the last file whole. Throws why rows could not be kept, once. */
  finish(): Promise<void>;
}

export function addKeepFlags(command: Command): Command {
  return command
    .option("--keep-rows <dir>", "also write the rows of a stream, or of --model, as files into this empty folder")
    .addOption(choice("--keep-dtype <dtype>", "how they are stored (default: as they come)", KEPT_DTYPES));
}

/** `streams`: whether rows are read that can be kept, by one process. */
export async function openKeptRows({ keepRows, keepDtype }: KeepFlags, streams: boolean): Promise<KeptRows> {
  if (keepRows === undefined) {
    if (keepDtype !== undefined) throw new UsageError("--keep-dtype needs --keep-rows", { mend: "name a folder" });
    return { keeper: undefined, signal: (of) => of, finish: async () => undefined };
  }
  if (!streams)
    throw new UsageError("--keep-rows is for rows of a stream or of --model, read by one process", {
      mend: "leave it out",
    });
  const { RowKeeper: Keeper } = await import("../data/row-keeper.ts");
  const stop = new AbortController();
  const keeper = await Keeper.open({ folder: keepRows, dtype: keepDtype, onFailure: (error) => stop.abort(error) });
  let finished = false;
  return {
    keeper,
    signal: (of) => (of === undefined ? stop.signal : AbortSignal.any([of, stop.signal])),
    async finish() {
      if (finished) return;
      finished = true;
      await keeper.close();
      const { rows, files } = keeper;
      if (rows > 0) note(`${counted(rows, "row")} kept in ${keepRows}, in ${counted(files, "file")}`);
      stop.signal.throwIfAborted();
    },
  };
}
