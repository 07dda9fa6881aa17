import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import type { Command } from "commander";
import { runFolderOf } from "../checkpoint/layout.ts";
import { atMost, rowsOf } from "../data/chunks.ts";
import { writeDelphi } from "../features/delphi.ts";
import { REPORT_FORMATS, type ReportFormat, writeHtmlReport } from "../features/html-report.ts";
import type { Stage } from "../features/write-features.ts";
import { loadSae, type Sae } from "../inference/sae.ts";
import type { WeightsKind } from "../inference/weights.ts";
import { evaluate } from "../metrics/evaluate.ts";
import type { FeatureSummary } from "../run-files/feature-summary.ts";
import { SaettaError } from "../util/errors.ts";
import { counted } from "../util/format.ts";
import { parseCount } from "../util/numbers.ts";
import { createProgressLine, type ProgressLine } from "../util/progress.ts";
import { evalData } from "./eval-data.ts";
import { noteOddities } from "./eval-run.ts";
import { addFlags, choice, DATA_FLAGS, givenOptions, selectedPath, selectFlag, weightsFlag } from "./flags.ts";
import { INFERENCE_DTYPE, inferenceEngine } from "./inference-engine.ts";
import { note } from "./note.ts";

interface Flags {
  readonly data?: readonly string[];
  readonly out?: string;
  readonly format?: ReportFormat | "delphi";
  readonly force?: boolean;
  readonly model?: string;
  readonly tokenizer?: string;
  readonly weights?: WeightsKind;
  readonly maxRows?: number;
  readonly select?: string;
}

const OUT = {
  html: "features.html",
  csv: "latents.csv",
  neuronpedia: "neuronpedia",
  saedashboard: "saedashboard",
  delphi: "delphi",
};

/**
 * FVU of a run's autoencoder on the rows that the run held out; undefined where there is no run, or
 * its rows cannot be read.
 */
async function heldOutOf(sae: Sae & { readonly path: string }): Promise<FeatureSummary["heldOut"]> {
  if (runFolderOf(resolve(sae.path)) === undefined) return undefined;
  try {
    const { source, ranges, nonFinite } = await evalData(resolve(sae.path), [], {});
    try {
      const { fvu, rows } = await evaluate(sae, source.dtype, rowsOf(source, ranges, sae.chunks(nonFinite)));
      return { fvu, rows };
    } finally {
      await source.close();
    }
  } catch (thrown) {
    if (!(thrown instanceof SaettaError)) throw thrown;
    note(`the page has no held-out FVU: ${thrown.message}`);
    return undefined;
  }
}

/** Before any work: the page of another run may be there. */
async function refuseTaken(out: string): Promise<void> {
  if ((await stat(out).catch(() => undefined)) === undefined) return;
  throw new SaettaError("exists already", { where: out, mend: "choose another --out, or pass --force to replace it" });
}

export function reportCommand(program: Command): void {
  const command = program
    .command("report")
    .description("the features of an autoencoder as one HTML file: what each latent does, in its text")
    .argument("<sae>", "run folder, checkpoint folder, or any autoencoder that Saetta reads")
    .option("--data <paths...>", "files or folders of activations (default: the hold-out of the run)")
    .addOption(
      choice("--format <format>", "what to write: a page, a table, or the files of another viewer (default: html)", [
        ...REPORT_FORMATS,
        "delphi",
      ]),
    )
    .option("--out <path>", "the file to write, or the folder of another viewer's files (default: features.html)")
    .option("--force", "replace the file if it exists")
    .option("--model <path>", "the ONNX model that the activations are of (default: the one they name, if it is there)")
    .option("--tokenizer <path>", "its tokenizer.json (default: the one that the activations name, if it is there)")
    .addOption(weightsFlag())
    .addOption(selectFlag())
    .option("--max-rows <N>", "look at no more than N rows, evenly spread", (text) => parseCount(text, "--max-rows"))
    .addHelpText("after", "\nExample:\n  saetta report runs/first --data acts.h5 --out features.html\n");
  addFlags(command, DATA_FLAGS, { dtype: INFERENCE_DTYPE });
  command.action(async (named: string, flags: Flags) => {
    const { data = [], force, model, tokenizer, weights, maxRows, format = "html" } = flags;
    const out = flags.out ?? OUT[format];
    const path = selectedPath(named, flags.select);
    if (force !== true) await refuseTaken(out);
    const asked = givenOptions(command);
    await using engine = await inferenceEngine(asked);
    await using sae = await loadSae(path, weights === undefined ? { engine } : { engine, weights });
    const { source, ranges, nonFinite } = await evalData(resolve(sae.path), data, asked, {
      mend: "name the activations with --data",
      onNote: note,
    });
    const line: { stage?: Stage; progress?: ProgressLine } = {};
    try {
      const onProgress = (stage: Stage, done: number, total: number) => {
        if (line.stage !== stage) line.progress?.done();
        if (line.stage !== stage)
          line.progress = createProgressLine({
            label: stage,
            total,
            unit: stage === "read" || stage === "count" ? "rows" : "latents",
          });
        line.stage = stage;
        line.progress?.update(done);
      };
      if (format === "delphi") {
        const origin = sae.description.saetta;
        const [module, name] = [source.origin.tensor ?? origin?.tensor, source.origin.model ?? origin?.model];
        const folder = await writeDelphi(sae, source, atMost(ranges, maxRows ?? Number.POSITIVE_INFINITY), {
          out,
          module: (module ?? "module").replace(/[^\w.-]+/g, "-").replace(/^-+/, ""),
          model: model ?? name ?? "",
          nonFinite,
        });
        process.stdout.write(`report       ${folder}: delphi's cache of ${counted(sae.dims.n, "latent")}\n`);
        return;
      }
      const heldOut = data.length === 0 ? ("these" as const) : await heldOutOf(sae);
      const options = { out, format, model, tokenizer, maxRows, nonFinite, heldOut, onNote: note, onProgress };
      const { first, latents, rows, fvu } = await writeHtmlReport(sae, source, ranges, options);
      line.progress?.done();
      noteOddities(sae, source, fvu);
      process.stdout.write(
        `report       ${out}: ${counted(latents, "latent")} on ${counted(rows, "row")}; it opens with latent ${first}\n`,
      );
    } finally {
      line.progress?.done();
      await source.close();
    }
  });
}
