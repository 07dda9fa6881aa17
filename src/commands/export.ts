import type { Command } from "commander";
import { type ExportOptions, exportSae } from "../inference/exchange.ts";
import { FORMATS } from "../interchange/format.ts";
import { parseCount } from "../util/numbers.ts";
import { exchangeText } from "./exchange-text.ts";
import { choice, selectedPath, selectFlag, weightsFlag } from "./flags.ts";
import { note } from "./note.ts";

interface Flags extends Omit<ExportOptions, "data"> {
  readonly data?: readonly string[];
  readonly json?: boolean;
  readonly select?: string;
}

export function exportCommand(program: Command): void {
  const command = program
    .command("export")
    .description("write an autoencoder for SAELens, sparsify, OpenAI's loader, dictionary_learning or circuit-tracer")
    .argument("<sae>", "run folder, checkpoint folder, or any autoencoder that Saetta reads")
    .addOption(choice("--format <format>", "whose files to write", FORMATS).makeOptionMandatory())
    .requiredOption("--out <dir>", "the folder to write")
    .addOption(selectFlag())
    .option("--bare", "openai: the state dict alone, as train.py writes it")
    .addHelpText("after", "\nExample:\n  saetta export runs/first --format saelens --out first-saelens --verify\n");
  addWriteFlags(command).action(async (path: string, { json, select, ...options }: Flags) => {
    const done = await exportSae(selectedPath(path, select), options);
    for (const each of done.notes) note(each);
    process.stdout.write(exchangeText(done, json === true, done.description.saetta?.importedFrom === undefined));
  });
}

/** The flags of what is written in another program's format. */
export function addWriteFlags(command: Command): Command {
  return command
    .addOption(weightsFlag())
    .option("--model <name>", "name of the language model to write down")
    .option("--hook <name>", "name of the hook, in the words of the program that reads it")
    .option("--target-hook <name>", "the same of the hook that a transcoder writes to")
    .option("--layer <N>", "circuit_tracer: number of the layer, where the hook's name does not say it", (text) =>
      parseCount(text, "--layer", 0),
    )
    .option("--inexact", "write layer_norm for programs that undo it without the 1e-5")
    .option("--k <N>", "active latents per row, where the autoencoder's file does not say it", (text) =>
      parseCount(text, "--k"),
    )
    .option("--verify", "compare rows through the written file's own rules")
    .option("--data <acts...>", "activations to compare with (default: random rows)")
    .option("--json", "print one JSON object");
}
