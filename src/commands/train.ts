import type { Command } from "commander";
import { configFromJson } from "../config.ts";
import type { Source } from "../data/source.ts";
import { absolute, modelOf } from "../model-flags.ts";
import { checkTarget, targetPaths } from "../transcoder-options.ts";
import { messageOf, SaettaError, UsageError } from "../util/errors.ts";
import { readTextFile } from "../util/json.ts";
import { addFlags, givenOptions } from "./flags.ts";
import { addKeepFlags, type KeepFlags, openKeptRows } from "./keep-rows.ts";
import { openModelRows } from "./model-rows.ts";
import { nprocOption } from "./nproc.ts";
import { addPageFlags, checkPageFlags } from "./page.ts";
import { gridFrom, inRanks } from "./ranks.ts";
import { isRowStream, openRowInput } from "./row-stream.ts";
import type { RunFlags } from "./run-to-end.ts";

interface Flags extends RunFlags, KeepFlags {
  readonly out?: string;
  readonly config?: string;
}

export function trainCommand(program: Command): void {
  const command = program
    .command("train")
    .description("train an autoencoder on activations")
    .argument(
      "[data...]",
      "files or folders of activations: HDF5, npy, safetensors, Arrow, torch; [rows, width] or [sequences, tokens, width]; - or a socket: rows in frames, from a program",
    )
    .addHelpText("after", "\nExample:\n  saetta train acts.h5 --latents 4096 --k 32 --tokens 10M --out runs/first\n");
  addPageFlags(addKeepFlags(addFlags(command)))
    .option("--out <dir>", "run folder (default: runs/<data>-<UTC time>)")
    .option("--config <file>", "options from a JSON file, such as the config.json of a run; flags beat it")
    .addOption(nprocOption())
    .option("--json", "print the result as one JSON object")
    .helpOption("-h, --help", "show this help")
    .action(async (paths: readonly string[], flags: Flags) => {
      checkPageFlags(flags);
      const file = flags.config === undefined ? undefined : configFromJson(await readText(flags.config), flags.config);
      const given = givenOptions(command);
      const { nproc } = flags;
      const options = { ...(await gridFrom(withoutRivals(file?.options ?? {}, given), { ...given, nproc })), ...given };
      const model = modelOf(options);
      const data = paths.length > 0 ? paths : (file?.data ?? (model && []));
      if (data === undefined)
        throw new UsageError("no data: name the files of activations", { mend: "saetta train acts.h5" });
      if (model !== undefined && data.length > 0)
        throw new UsageError("files of activations and --model exclude each other", { mend: "leave one of them out" });
      checkTarget(options, options.target !== undefined);
      const streams = await isRowStream(data);
      await inRanks({ ...options, nproc }, async (collective) => {
        // What --help does without is loaded here.
        const [{ openData }, { train }, { runToEnd }] = await Promise.all([
          import("../data/open.ts"),
          import("../train/train.ts"),
          import("./run-to-end.ts"),
        ]);
        const kept = await openKeptRows(flags, (streams || model !== undefined) && collective.grid.size === 1);
        const { keeper } = kept;
        const recorded = { ...absolute(options), out: flags.out };
        let source: Source | undefined;
        try {
          const input = streams ? await openRowInput(data[0]!, options, { keep: keeper }) : undefined;
          const made = model === undefined ? input?.source : await openModelRows(model, keeper);
          const rows = made ?? (await openData(data, { ...options, target: targetPaths(options) }));
          source = rows;
          await runToEnd(
            (about) => train(rows, { ...recorded, ...about, signal: kept.signal(about.signal) }),
            collective,
            flags,
          );
          input?.check();
        } finally {
          await source?.close();
          await kept.finish();
        }
      });
    });
}

async function readText(path: string): Promise<string> {
  return readTextFile(path).catch((cause: unknown) => {
    throw new SaettaError(messageOf(cause), { mend: "name a JSON file with --config", cause });
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
