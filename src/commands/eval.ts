import { resolve } from "node:path";
import { type Command, Option } from "commander";
import { selectEngine } from "../engine/select.ts";
import { pageOf, reportText } from "../eval/print.ts";
import { evalReport } from "../eval/report.ts";
import { loadSae } from "../inference/sae.ts";
import type { WeightsKind } from "../inference/weights.ts";
import { snakeCase } from "../util/json.ts";
import { parseCount } from "../util/numbers.ts";
import { createProgress } from "../util/progress.ts";
import { evalData } from "./eval-data.ts";
import { addFlags, givenOptions } from "./flags.ts";
import { note } from "./note.ts";

interface Flags {
  readonly features?: number;
  readonly weights?: WeightsKind;
  readonly maxRows?: number;
  readonly json?: boolean;
}

export function evalCommand(program: Command): void {
  const command = program
    .command("eval")
    .description("measure an autoencoder on held-out rows, and show latents in their text")
    .argument("<sae>", "run folder, checkpoint folder, or a folder or file of another program")
    .argument("[data...]", "files or folders of activations (default: the hold-out of the run)")
    .option("--features <N>", "show N latents in their text (default: 0)", (text) => parseCount(text, "--features", 0))
    .addOption(new Option("--weights <kind>", "running average or raw weights (default: ema where there is one)").choices(["ema", "raw"]))
    .option("--max-rows <N>", "look at no more than N rows, evenly spread", (text) => parseCount(text, "--max-rows"))
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  saetta eval runs/first --features 5\n");
  addFlags(command, ["engine", "threads", "dataset", "nonFinite", "excludeTokens"]);
  command.action(async (path: string, data: readonly string[], { features, weights, maxRows, json }: Flags) => {
    const asked = givenOptions(command);
    await using engine = await selectEngine(asked.engine ?? "auto", { threads: asked.threads, onNote: note });
    await using sae = await loadSae(path, weights === undefined ? { engine } : { engine, weights });
    for (const { error } of sae.found.refusals) note(`passed over a damaged checkpoint: ${error.message}`);
    const { source, ranges, nonFinite } = await evalData(resolve(sae.path), data, asked);
    try {
      const progress = createProgress({ label: "eval", unit: "rows" });
      const report = await evalReport(sae, source, ranges, { features, maxRows, nonFinite, onProgress: (done) => progress.update(done) });
      progress.done();
      process.stdout.write(
        `${json === true ? JSON.stringify(snakeCase(report), undefined, 2) : reportText(report, pageOf(process.stdout))}\n`,
      );
    } finally {
      await source.close();
    }
  });
}
