import { type Command, Option } from "commander";
import type { OpenOptions } from "../data/open.ts";
import { inspect } from "../inspect/inspect.ts";
import { inspectionText } from "../inspect/print.ts";
import { parseCount } from "../util/numbers.ts";
import { selectedPath, selectFlag } from "./flags.ts";

interface Flags extends OpenOptions {
  readonly json?: boolean;
  readonly select?: string;
}

export function inspectCommand(program: Command): void {
  program
    .command("inspect")
    .description("say what a file or folder is: activations, autoencoders, models, tokenizers, runs, checkpoints")
    .argument("<path>", "file or folder, or a quoted pattern such as 'acts-*.npy'")
    .option("--dataset <name>", "the activations, in a file that has several arrays")
    .addOption(new Option("--as <type>", "what 2-byte elements of the activations are").choices(["bf16", "f16"]))
    .option("--layer <n>", "the layer of activations [tokens, layers, width], from 0", (text) =>
      parseCount(text, "--layer", 0),
    )
    .addOption(selectFlag())
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  saetta inspect acts.h5\n")
    .action(async (path: string, { select, json, ...options }: Flags) => {
      const found = await inspect(selectedPath(path, select), options);
      process.stdout.write(`${json === true ? JSON.stringify(found, undefined, 2) : inspectionText(found)}\n`);
    });
}
