import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { configFromJson } from "../config.ts";
import { messageOf, SaettaError, UsageError } from "../util/errors.ts";
import { addFlags, givenOptions } from "./flags.ts";
import { note } from "./note.ts";

interface Flags {
  readonly out?: string;
  readonly config?: string;
  readonly json?: boolean;
}

export function trainCommand(program: Command): void {
  const command = program
    .command("train")
    .description("train an autoencoder on activations")
    .argument(
      "[data...]",
      "files or folders of activations: HDF5, npy, safetensors, Arrow, torch; [rows, width] or [sequences, tokens, width]",
    )
    .addHelpText("after", "\nExample:\n  saetta train acts.h5 --latents 4096 --k 32 --tokens 10M --out runs/first\n");
  addFlags(command)
    .option("--out <dir>", "run folder (default: runs/<data>-<UTC time>)")
    .option("--config <file>", "options from a JSON file, such as the config.json of a run; flags beat it")
    .option("--json", "print the result as one JSON object")
    .helpOption("-h, --help", "show this help")
    .action(async (paths: readonly string[], flags: Flags) => {
      const file = flags.config === undefined ? undefined : configFromJson(await readText(flags.config), flags.config);
      const given = givenOptions(command);
      const options = { ...withoutRivals(file?.options ?? {}, given), ...given };
      const data = paths.length > 0 ? paths : file?.data;
      if (data === undefined) throw new UsageError("no data: name the files of activations", { mend: "saetta train acts.h5" });
      // What --help does without is loaded here.
      const [{ openSource }, { train }] = await Promise.all([import("../data/open.ts"), import("../train/train.ts")]);
      const [{ follow }, { catchSignals }] = await Promise.all([import("./follow.ts"), import("./signals.ts")]);
      const source = await openSource(data, options.dataset === undefined ? {} : { dataset: options.dataset });
      const ending = catchSignals("finishing the step and saving a checkpoint");
      try {
        await follow(await train(source, { ...options, out: flags.out, signal: ending.signal, onNote: note }), ending, flags.json === true);
      } finally {
        ending.close();
        await source.close();
      }
    });
}

async function readText(path: string): Promise<string> {
  return readFile(path, "utf8").catch((cause: unknown) => {
    throw new SaettaError(`cannot be read (${messageOf(cause)})`, { where: path, mend: "name a JSON file with --config", cause });
  });
}

/** A flag replaces what it excludes in the file. */
function withoutRivals<T extends { tokens?: unknown; epochs?: unknown; latents?: unknown; expansion?: unknown }>(file: T, given: T): T {
  const { tokens, epochs, latents, expansion, ...rest } = file;
  const budget = given.tokens !== undefined || given.epochs !== undefined ? {} : { tokens, epochs };
  const width = given.latents !== undefined || given.expansion !== undefined ? {} : { latents, expansion };
  return Object.fromEntries(Object.entries({ ...rest, ...budget, ...width }).filter(([, value]) => value !== undefined)) as T;
}
