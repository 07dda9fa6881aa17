import type { Command } from "commander";
import { examine } from "../engine/examine.ts";

export function doctorCommand(program: Command): void {
  program
    .command("doctor")
    .description("which engines run here, why the others do not, and whether they compute right")
    .option("--json", "print the findings as one JSON object")
    .addHelpText("after", "\nExample:\n  saetta doctor\n")
    .action(async (flags: { readonly json?: boolean }) => {
      const examination = await examine();
      if (flags.json === true) process.stdout.write(`${JSON.stringify(examination)}\n`);
      else for (const { line } of examination.checks) process.stdout.write(`${line}\n`);
      if (!examination.sound) process.exitCode = 1;
    });
}
