import type { Command } from "commander";
import { CHANGEABLE } from "../config.ts";
import { addFlags, givenOptions } from "./flags.ts";
import { note } from "./note.ts";
import { addPageFlags, checkPageFlags, type PageFlags, showRun } from "./page.ts";

export function resumeCommand(program: Command): void {
  const command = program
    .command("resume")
    .description("go on with a run from its last checkpoint; --tokens or --epochs extend it")
    .argument("<run>", "run folder")
    .addHelpText("after", "\nExample:\n  saetta resume runs/first --tokens 20M\n");
  addPageFlags(addFlags(command))
    .option("--data <files...>", "where the data is now, if it was moved")
    .option("--json", "print the result as one JSON object")
    .helpOption("-h, --help", "show this help")
    .action(async (dir: string, flags: PageFlags & { readonly data?: readonly string[]; readonly json?: boolean }) => {
      checkPageFlags(flags);
      const [{ resume }, { follow }, { catchSignals }] = await Promise.all([
        import("../train/train.ts"),
        import("./follow.ts"),
        import("./signals.ts"),
      ]);
      const ending = catchSignals("finishing the step and saving a checkpoint");
      try {
        const moved = flags.data === undefined ? {} : { data: flags.data };
        const run = await resume(dir, { ...givenOptions(command), ...moved, signal: ending.signal, onNote: note });
        const hide = await showRun(run.out, flags);
        await follow(run, ending, flags.json === true).finally(hide);
      } finally {
        ending.close();
      }
    });
  // The others are understood too, to say what they are fixed at.
  for (const option of command.options) {
    option.description = option.description.replace(/ \(default: .*\)$/, ""); // here it is what the run has
    if (![...CHANGEABLE, "data", "json", "serve", "port"].includes(option.attributeName())) option.hideHelp();
  }
}
