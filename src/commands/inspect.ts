import type { Command } from "commander";
import { inspect } from "../eval/inspect.ts";
import { inspectionText } from "../eval/inspect-print.ts";

export function inspectCommand(program: Command): void {
  program
    .command("inspect")
    .description("say what a file or folder is: activations, weights, models, tokenizers, runs, checkpoints")
    .argument("<path>", "file or folder, or a quoted pattern such as 'acts-*.npy'")
    .option("--dataset <name>", "the activations, in a file that has several arrays")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  saetta inspect acts.h5\n")
    .action(async (path: string, flags: { readonly json?: boolean; readonly dataset?: string }) => {
      const found = await inspect(path, flags.dataset === undefined ? {} : { dataset: flags.dataset });
      process.stdout.write(`${flags.json === true ? JSON.stringify(found, undefined, 2) : inspectionText(found)}\n`);
    });
}
