import { join } from "node:path";
import type { Command } from "commander";
import { isSweep, readSweep } from "../train/sweep/sweep-folder.ts";
import { type Verification, verificationText, verifyRun } from "../train/verify.ts";
import { snakeCase } from "../util/json.ts";

export function verifyCommand(program: Command): void {
  program
    .command("verify")
    .description("check every byte of a run folder, a sweep, or one checkpoint; exits 1 when anything is damaged")
    .argument("<run>", "run folder, folder of a sweep, or checkpoint folder")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  saetta verify runs/first\n")
    .action(async (path: string, flags: { readonly json?: boolean }) => {
      const runs = (await isSweep(path)) ? (await readSweep(path)).members.map((name) => join(path, name)) : [path];
      const found: Verification[] = [];
      for (const run of runs) found.push(await verifyRun(run));
      const json = () => JSON.stringify(snakeCase(found.length === 1 ? found[0] : { runs: found }), undefined, 2);
      process.stdout.write(`${flags.json === true ? json() : found.map(verificationText).join("\n")}\n`);
      if (found.some(({ sound }) => !sound)) process.exitCode = 1;
    });
}
