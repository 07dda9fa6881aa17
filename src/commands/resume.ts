import type { Command } from "commander";
import { CHANGEABLE } from "../config.ts";
import { addFlags, givenOptions } from "./flags.ts";
import { note } from "./note.ts";

export function resumeCommand(program: Command): void {
  const command = program
    .command("resume")
    .description("go on with a run from its last checkpoint; --tokens or --epochs extend it")
    .argument("<run>", "run folder")
    .addHelpText("after", "\nExample:\n  saetta resume runs/first --tokens 20M\n");
  addFlags(command)
    .option("--data <files...>", "where the data is now, if it was moved")
    .option("--json", "print the result as one JSON object")
    .helpOption("-h, --help", "show this help")
    .action(async (dir: string, flags: { readonly data?: readonly string[]; readonly json?: boolean }) => {
      const [{ resume }, { follow }, { catchSignals }] = await Promise.all([
        import("../train/train.ts"),
        import("./follow.ts"),
        import("./signals.ts"),
      ]);
      const ending = catchSignals("finishing the step and saving a checkpoint");
      try {
        const moved = flags.data === undefined ? {} : { data: flags.data };
        await follow(
          await resume(dir, { ...givenOptions(command), ...moved, signal: ending.signal, onNote: note }),
          ending,
          flags.json === true,
        );
      } finally {
        ending.close();
      }
    });
  // The others are understood too, to say what they are fixed at.
  for (const option of command.options) {
    option.description = option.description.replace(/ \(default: .*\)$/, ""); // here it is what the run has
    if (![...CHANGEABLE, "data", "json"].includes(option.attributeName())) option.hideHelp();
  }
}
