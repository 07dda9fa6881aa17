import type { Command } from "commander";
import { resume } from "../train/train.ts";
import { addFlags, givenOptions } from "./flags.ts";
import { follow } from "./follow.ts";
import { catchSignals } from "./signals.ts";

export function resumeCommand(program: Command): void {
  const command = program
    .command("resume")
    .description("go on with a run from its last checkpoint; --tokens or --epochs extend it")
    .argument("<run>", "run folder")
    .option("--data <files...>", "where the data is now, if it was moved")
    .option("--json", "print the result as one JSON object")
    .addHelpText("after", "\nExample:\n  saetta resume runs/first --tokens 20M\n");
  addFlags(command).action(async (dir: string, flags: { readonly data?: readonly string[]; readonly json?: boolean }) => {
    const ending = catchSignals("finishing the step and saving a checkpoint");
    try {
      const onNote = (note: string) => process.stderr.write(`saetta: note: ${note}\n`);
      const moved = flags.data === undefined ? {} : { data: flags.data };
      await follow(await resume(dir, { ...givenOptions(command), ...moved, signal: ending.signal, onNote }), ending, flags.json === true);
    } finally {
      ending.close();
    }
  });
}
