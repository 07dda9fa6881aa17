import type { Command } from "commander";
import { type ImportOptions, importSae } from "../inference/exchange.ts";
import { parseCount } from "../util/numbers.ts";
import { exchangeText } from "./exchange-text.ts";
import { note } from "./note.ts";

interface Flags extends ImportOptions {
  readonly json?: boolean;
}

export function importCommand(program: Command): void {
  program
    .command("import")
    .description(
      "read an autoencoder of SAELens, sparsify, OpenAI, dictionary_learning or circuit-tracer into a folder of ours",
    )
    .argument("<path>", "the folder, or the torch file")
    .requiredOption("--out <dir>", "the folder to write")
    .option("--k <N>", "active latents a row, where the file does not say it", (text) => parseCount(text, "--k"))
    .option("--verify", "compare rows through the rules of the file that was read")
    .option("--data <acts...>", "activations to compare with (default: random rows)")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  saetta import autoencoder.pt --out imported --verify\n")
    .action(async (path: string, { json, ...options }: Flags) => {
      const done = await importSae(path, options);
      for (const each of done.notes) note(each);
      process.stdout.write(exchangeText(done, json === true, false));
    });
}
