import type { Command } from "commander";
import { type ImportOptions, importSae } from "../inference/exchange.ts";
import { parseCount } from "../util/numbers.ts";
import { exchangeText } from "./exchange-text.ts";
import { selectedPath, selectFlag } from "./flags.ts";
import { note } from "./note.ts";

interface Flags extends ImportOptions {
  readonly json?: boolean;
  readonly select?: string;
}

export function importCommand(program: Command): void {
  program
    .command("import")
    .description(
      "read an autoencoder of another program or a published one (SAELens, Gemma Scope, Llama Scope, ...) into a folder of ours",
    )
    .argument("<path>", "the folder, or the torch file")
    .requiredOption("--out <dir>", "the folder to write")
    .option("--k <N>", "active latents a row, where the file does not say it", (text) => parseCount(text, "--k"))
    .addOption(selectFlag())
    .option("--verify", "compare rows through the rules of the file that was read")
    .option("--data <acts...>", "activations to compare with (default: random rows)")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  saetta import autoencoder.pt --out imported --verify\n")
    .action(async (path: string, { json, select, ...options }: Flags) => {
      const done = await importSae(selectedPath(path, select), options);
      for (const each of done.notes) note(each);
      process.stdout.write(exchangeText(done, json === true, false));
    });
}
