import { join } from "node:path";
import type { Command } from "commander";
import { CHANGEABLE, type TrainOptions } from "../config.ts";
import type { RowKeeper } from "../data/row-keeper.ts";
import type { Source } from "../data/source.ts";
import { modelOf } from "../model-flags.ts";
import { UsageError } from "../util/errors.ts";
import { addFlags, givenOptions } from "./flags.ts";
import { addKeepFlags, type KeepFlags, openKeptRows } from "./keep-rows.ts";
import { openModelRows } from "./model-rows.ts";
import { note } from "./note.ts";
import { nprocOption } from "./nproc.ts";
import { addPageFlags, checkPageFlags } from "./page.ts";
import { checkAlone, gridFrom, inRanks } from "./ranks.ts";
import { addWatchFlags, openRowInput, type RowInput, type Stream, streamOf, type WatchFlags } from "./row-stream.ts";
import type { RunFlags } from "./run-to-end.ts";

interface Flags extends RunFlags, KeepFlags, WatchFlags {
  readonly data?: readonly string[];
}

/** New rows for a run that was trained on a stream: the ones that it saw cannot come again. */
async function continued(dir: string, stream: Stream, given: TrainOptions, keep?: RowKeeper): Promise<RowInput> {
  const [{ newestCheckpoint }, { readRunConfig }] = await Promise.all([
    import("../checkpoint/load.ts"),
    import("../train/run-folder.ts"),
  ]);
  const { options } = await readRunConfig(dir);
  const { checkpoint } = await newestCheckpoint(dir);
  const position = checkpoint?.progress.position;
  const row = typeof position === "object" && position !== null && "row" in position ? Number(position.row) : 0;
  if (row > 0)
    note(
      `the run has taken ${row.toLocaleString("en-US")} rows, which do not come again: the stream continues with its first row, and other rows are held out`,
    );
  if ("watch" in stream && stream.consume !== true)
    note("files that are still in the folder are used, also those that the run has used before");
  return openRowInput(stream, { ...options, ...given }, { keep, from: row });
}

/** Every member of the sweep that is not over. */
async function resumeWhole(dir: string, given: TrainOptions, flags: Flags): Promise<void> {
  await checkAlone(flags.nproc);
  if ((await streamOf(flags.data, flags)) !== undefined) {
    throw new UsageError("a sweep cannot be resumed with rows that are read once", {
      where: dir,
      mend: "give files with --data, or resume its runs one by one",
    });
  }
  const [{ resumeSweep }, { readSweep }, { readRunConfig }, { sweepToEnd }] = await Promise.all([
    import("../train/sweep/resume-sweep.ts"),
    import("../train/sweep/sweep-folder.ts"),
    import("../train/run-folder.ts"),
    import("./sweep-to-end.ts"),
  ]);
  const { members } = await readSweep(dir);
  const { options } = await readRunConfig(join(dir, members[0]!));
  const model = modelOf({ ...options, ...given });
  const makes = model !== undefined && flags.data === undefined;
  const kept = await openKeptRows(flags, makes);
  const rows = makes ? await openModelRows(model, kept.keeper) : undefined;
  const data = rows ?? flags.data;
  try {
    await sweepToEnd(
      ({ signal, onNote }) =>
        resumeSweep(dir, { ...given, ...(data && { data }), onNote, signal: kept.signal(signal) }),
      flags,
    );
  } finally {
    await rows?.close();
    await kept.finish();
  }
}

export function resumeCommand(program: Command): void {
  const command = program
    .command("resume")
    .description("go on with a run from its last checkpoint; --tokens or --epochs extend it")
    .argument("<run>", "run folder, or the folder of a sweep")
    .addHelpText("after", "\nExample:\n  saetta resume runs/first --tokens 20M\n");
  addPageFlags(addKeepFlags(addWatchFlags(addFlags(command))))
    .option("--data <files...>", "where the data is now, if it was moved")
    .addOption(nprocOption())
    .option("--json", "print the result as one JSON object")
    .helpOption("-h, --help", "show this help")
    .action(async (dir: string, flags: Flags) => {
      checkPageFlags(flags);
      const given = givenOptions(command);
      const { isSweep } = await import("../train/sweep/sweep-folder.ts");
      if (await isSweep(dir)) {
        await resumeWhole(dir, given, flags);
        return;
      }
      const { readRunConfig } = await import("../train/run-folder.ts");
      const { options } = await readRunConfig(dir);
      const { shards, replicas, engine } = { ...(await gridFrom(options, { ...given, nproc: flags.nproc })), ...given };
      await inRanks({ shards, replicas, engine, nproc: flags.nproc }, async (collective) => {
        const [{ resume }, { runToEnd }] = await Promise.all([import("../train/resume.ts"), import("./run-to-end.ts")]);
        const stream = await streamOf(flags.data, flags);
        const model = flags.data === undefined && stream === undefined ? modelOf({ ...options, ...given }) : undefined;
        const kept = await openKeptRows(
          flags,
          (stream !== undefined || model !== undefined) && collective.grid.size === 1,
        );
        const { keeper } = kept;
        let rows: Source | undefined;
        try {
          const input = stream && (await continued(dir, stream, given, keeper));
          rows = model === undefined ? input?.source : await openModelRows(model, keeper);
          const data = rows ?? flags.data;
          await runToEnd(
            (about) => resume(dir, { ...given, ...(data && { data }), ...about, signal: kept.signal(about.signal) }),
            collective,
            flags,
          );
          input?.check();
        } finally {
          await rows?.close();
          await kept.finish();
        }
      });
    });
  // The others are understood too, to say what they are fixed at.
  for (const option of command.options) {
    option.description = option.description.replace(/ \(default: .*\)$/, ""); // here it is what the run has
    if (
      ![
        ...CHANGEABLE,
        "data",
        "target",
        "json",
        "nproc",
        "serve",
        "port",
        "keepRows",
        "keepDtype",
        "watch",
        "consume",
        "watchTimeout",
      ].includes(option.attributeName())
    )
      option.hideHelp();
  }
}
