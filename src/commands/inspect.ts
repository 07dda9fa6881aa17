import { type Command, Option } from "commander";
import type { OpenOptions } from "../data/open.ts";
import { inspect } from "../inspect/inspect.ts";
import { inspectionText } from "../inspect/print.ts";

export function inspectCommand(program: Command): void {
  program
    .command("inspect")
    .description("say what a file or folder is: activations, weights, models, tokenizers, runs, checkpoints")
    .argument("<path>", "file or folder, or a quoted pattern such as 'acts-*.npy'")
    .option("--dataset <name>", "the activations, in a file that has several arrays")
    .addOption(new Option("--as <type>", "what 2-byte elements of the activations are").choices(["bf16", "f16"]))
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  saetta inspect acts.h5\n")
    .action(async (path: string, flags: OpenOptions & { readonly json?: boolean }) => {
      const found = await inspect(path, flags);
      process.stdout.write(`${flags.json === true ? JSON.stringify(found, undefined, 2) : inspectionText(found)}\n`);
    });
}
