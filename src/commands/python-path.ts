import { fileURLToPath } from "node:url";
import type { Command } from "commander";

export function pythonPathCommand(program: Command): void {
  program
    .command("python-path")
    .description("print the folder of the Python package, to put on PYTHONPATH")
    .addHelpText("after", '\nExample:\n  PYTHONPATH="$(saetta python-path)" python3 -c "import saetta"\n')
    .action(() => {
      process.stdout.write(`${fileURLToPath(new URL("../../python", import.meta.url))}\n`);
    });
}
