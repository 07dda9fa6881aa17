import type { Command } from "commander";
import { configFromJson, flagOf, type TrainOptions } from "../config.ts";
import type { Source } from "../data/source.ts";
import { absolute, modelOf } from "../model-flags.ts";
import { alikeFrom, gridFromJson } from "../sweep-options.ts";
import { checkTarget, targetPaths } from "../transcoder-options.ts";
import { messageOf, SaettaError, UsageError } from "../util/errors.ts";
import { readTextFile } from "../util/json.ts";
import { addFlags, givenCombinations } from "./flags.ts";
import { addKeepFlags, type KeepFlags, type KeptRows, openKeptRows } from "./keep-rows.ts";
import { openModelRows } from "./model-rows.ts";
import { nprocOption } from "./nproc.ts";
import { addPageFlags, checkPageFlags } from "./page.ts";
import { checkAlone, gridFrom, inRanks } from "./ranks.ts";
import { addWatchFlags, openRowInput, streamOf, type WatchFlags } from "./row-stream.ts";
import type { RunFlags } from "./run-to-end.ts";

interface Flags extends RunFlags, KeepFlags, WatchFlags {
  readonly out?: string;
  readonly config?: string;
  readonly grid?: string;
  readonly halve?: string | true;
}

export function trainCommand(program: Command): void {
  const command = program
    .command("train")
    .description("train an autoencoder on activations")
    .argument(
      "[data...]",
      "files or folders of activations: HDF5, npy, safetensors, Arrow, torch; [rows, width] or [sequences, tokens, width]; - or a socket: rows in frames, from a program",
    )
    .addHelpText(
      "after",
      "\nExamples:\n  saetta train acts.h5 --latents 4096 --k 32 --tokens 10M --out runs/first\n" +
        "  saetta train acts.h5 --k 16,32,64 --lr 3e-4,1e-3 --out runs/sweep\n\n" +
        "Several values of an option are a sweep: an autoencoder for each\ncombination, all trained from one read.\n",
    );
  addPageFlags(addKeepFlags(addWatchFlags(addFlags(command))))
    .option("--out <dir>", "run folder (default: runs/<data>-<UTC time>)")
    .option("--config <file>", "options from a JSON file, such as the config.json of a run; flags beat it")
    .option(
      "--grid <file>",
      "a sweep of the autoencoders in a JSON list of objects of options; flags are of all of them",
    )
    .option(
      "--halve [options]",
      "of a sweep: end the worse half early, after 1/8, 1/4 and 1/2 of the steps, among those that have these options alike, or all (default: architecture, k, latents, target L0)",
    )
    .addOption(nprocOption())
    .option("--json", "print the result as one JSON object")
    .helpOption("-h, --help", "show this help")
    .action(async (paths: readonly string[], flags: Flags) => {
      checkPageFlags(flags);
      const file = flags.config === undefined ? undefined : configFromJson(await readText(flags.config), flags.config);
      const { nproc } = flags;
      const members = membersFrom(
        givenCombinations(command),
        flags.grid && (await readText(flags.grid, "--grid")),
        flags,
      );
      const sweeps = members.length > 1 || flags.grid !== undefined;
      if (sweeps) await checkAlone(nproc);
      else if (flags.halve !== undefined)
        throw new UsageError("--halve is of a sweep", { mend: "give several values of an option, or --grid" });
      const all: TrainOptions[] = [];
      for (const given of members) {
        all.push({ ...(await gridFrom(withoutRivals(file?.options ?? {}, given), { ...given, nproc })), ...given });
      }
      const options = all[0]!;
      const model = modelOf(options);
      const data = paths.length > 0 ? paths : (file?.data ?? ((model ?? flags.watch) === undefined ? undefined : []));
      if (data === undefined)
        throw new UsageError("no data: name the files of activations", { mend: "saetta train acts.h5" });
      if (model !== undefined && data.length > 0)
        throw new UsageError("files of activations and --model exclude each other", { mend: "leave one of them out" });
      checkTarget(options, options.target !== undefined);
      const stream = await streamOf(data, flags);
      if (model !== undefined && stream !== undefined)
        throw new UsageError("--watch and --model exclude each other", { mend: "leave one of them out" });
      const withRows = async (alone: boolean, body: (rows: Source, kept: KeptRows) => Promise<void>) => {
        const { openData } = await import("../data/open.ts");
        const kept = await openKeptRows(flags, (stream !== undefined || model !== undefined) && alone);
        const { keeper } = kept;
        let source: Source | undefined;
        try {
          const input = stream && (await openRowInput(stream, options, { keep: keeper }));
          const made = model === undefined ? input?.source : await openModelRows(model, keeper);
          source = made ?? (await openData(data, { ...options, target: targetPaths(options) }));
          await body(source, kept);
          input?.check();
        } finally {
          await source?.close();
          await kept.finish();
        }
      };
      // What --help does without is loaded here.
      if (sweeps) {
        const [{ sweep }, { sweepToEnd }] = await Promise.all([
          import("../train/sweep/sweep.ts"),
          import("./sweep-to-end.ts"),
        ]);
        const halve = typeof flags.halve === "string" ? alikeFrom(flags.halve) : flags.halve;
        const about = { out: flags.out, halve };
        await withRows(true, (rows, kept) =>
          sweepToEnd(
            (control) => sweep(rows, all.map(absolute), { ...about, ...control, signal: kept.signal(control.signal) }),
            flags,
          ),
        );
        return;
      }
      await inRanks({ ...options, nproc }, async (collective) => {
        const [{ train }, { runToEnd }] = await Promise.all([import("../train/train.ts"), import("./run-to-end.ts")]);
        const recorded = { ...absolute(options), out: flags.out };
        await withRows(collective.grid.size === 1, (rows, kept) =>
          runToEnd(
            (about) => train(rows, { ...recorded, ...about, signal: kept.signal(about.signal) }),
            collective,
            flags,
          ),
        );
      });
    });
}

/** The options of each autoencoder: of the flags, and of each entry of the grid file. */
function membersFrom(given: readonly TrainOptions[], grid: string | undefined, flags: Flags): readonly TrainOptions[] {
  if (grid === undefined) return given;
  const entries = gridFromJson(grid, flags.grid!);
  const names = new Set(entries.flatMap((entry) => Object.keys(entry)));
  const both = Object.keys(given[0] ?? {}).find((name) => names.has(name));
  if (both !== undefined) {
    throw new UsageError(`${flagOf(both)} is given, and the grid file has it, too`, {
      where: flags.grid!,
      mend: "leave one of them out",
    });
  }
  return entries.flatMap((entry) => given.map((options) => ({ ...entry, ...options })));
}

async function readText(path: string, flag = "--config"): Promise<string> {
  return readTextFile(path).catch((cause: unknown) => {
    throw new SaettaError(messageOf(cause), { mend: `name a JSON file with ${flag}`, cause });
  });
}

/** A flag replaces what it excludes in the file. */
function withoutRivals<T extends { tokens?: unknown; epochs?: unknown; latents?: unknown; expansion?: unknown }>(
  file: T,
  given: T,
): T {
  const { tokens, epochs, latents, expansion, ...rest } = file;
  const budget = given.tokens !== undefined || given.epochs !== undefined ? {} : { tokens, epochs };
  const width = given.latents !== undefined || given.expansion !== undefined ? {} : { latents, expansion };
  return Object.fromEntries(
    Object.entries({ ...rest, ...budget, ...width }).filter(([, value]) => value !== undefined),
  ) as T;
}
