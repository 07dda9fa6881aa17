import type { Command } from "commander";
import { inspect } from "../eval/inspect.ts";
import { inspectionText } from "../eval/inspect-print.ts";

export function inspectCommand(program: Command): void {
  program
    .command("inspect")
    .description("say what a file or folder is: activations, weights, models, tokenizers, runs, checkpoints")
    .argument("<path>", "file or folder")
    .option("--json", "print one JSON object")
    .action(async (path: string, flags: { readonly json?: boolean }) => {
      const found = await inspect(path);
      process.stdout.write(`${flags.json === true ? JSON.stringify(found, undefined, 2) : inspectionText(found)}\n`);
    });
}
