import type { Command } from "commander";
import { verificationText, verifyRun } from "../train/verify.ts";
import { snakeCase } from "../util/json.ts";

export function verifyCommand(program: Command): void {
  program
    .command("verify")
    .description("check every byte of a run folder, or of one checkpoint; exits 1 when anything is damaged")
    .argument("<run>", "run folder or checkpoint folder")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  saetta verify runs/first\n")
    .action(async (path: string, flags: { readonly json?: boolean }) => {
      const found = await verifyRun(path);
      process.stdout.write(
        `${flags.json === true ? JSON.stringify(snakeCase(found), undefined, 2) : verificationText(found)}\n`,
      );
      if (!found.sound) process.exitCode = 1;
    });
}
