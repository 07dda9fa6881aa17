import type { Command } from "commander";
import { examine } from "../engine/examine.ts";

export function doctorCommand(program: Command): void {
  program
    .command("doctor")
    .description("which engines run here, why the others do not, and whether they compute right")
    .option("--json", "print the findings as one JSON object")
    .addHelpText("after", "\nExample:\n  saetta doctor\n")
    .action(async (flags: { readonly json?: boolean }) => {
      const findings = await examine();
      if (flags.json === true) process.stdout.write(`${JSON.stringify(findings)}\n`);
      else for (const { line } of findings.checks) process.stdout.write(`${line}\n`);
      if (!findings.sound) process.exitCode = 1;
    });
}
