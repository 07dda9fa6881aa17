import { resolve } from "node:path";
import type { Command } from "commander";
import { runFolderOf } from "../checkpoint/layout.ts";
import { featuresFile } from "../explorer/api.ts";
import { writeComparisonHtml } from "../explorer/html.ts";
import { openFeatures } from "../explorer/open.ts";
import { COMPARISON_DEFINITIONS, type Comparison } from "../explorer/shared/comparison.ts";
import type { LatentName } from "../explorer/shared/format.ts";
import { FeatureReader } from "../explorer/shared/reader.ts";
import { compareSaes } from "../features/compare.ts";
import { comparisonCsv, comparisonText } from "../features/print-comparison.ts";
import { labelsOf } from "../inference/labels.ts";
import { loadSae, type Sae } from "../inference/sae.ts";
import { refuseExisting } from "../util/atomic-write.ts";
import { UsageError } from "../util/errors.ts";
import { parseCount } from "../util/numbers.ts";
import { createProgressLine, type ProgressLine } from "../util/progress.ts";
import { sharedData } from "./eval-data.ts";
import { addFlags, DATA_FLAGS, givenOptions } from "./flags.ts";
import { INFERENCE_DTYPE, inferenceEngine } from "./inference-engine.ts";
import { note } from "./note.ts";

interface Flags {
  readonly data?: readonly string[];
  readonly decoders?: boolean;
  readonly least: number;
  readonly maxRows?: number;
  readonly out?: string;
  readonly force?: boolean;
  readonly json?: boolean;
  readonly csv?: boolean;
}

const LEAST = 0.7;

export function compareCommand(program: Command): void {
  const command = program
    .command("compare")
    .description("which latents of two autoencoders are the same, split, absorbed or new: seeds, k, architectures")
    .argument("<a>", "run folder, checkpoint folder, or any autoencoder that Saetta reads")
    .argument("<b>", "the other one")
    .option("--data <paths...>", "activations to compare on (default: what the runs held out)")
    .option("--decoders", "compare decoder rows alone, without rows")
    .option("--least <X>", `the least cosine or correlation of a match (default: ${LEAST})`, parseLeast, LEAST)
    .option("--max-rows <N>", "look at no more than N rows, evenly spread", (text) => parseCount(text, "--max-rows"))
    .option("--out <file>", "also write a page, as one HTML file")
    .option("--force", "replace the file if it exists")
    .option("--csv", "print a line per latent as comma-separated values")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  saetta compare runs/seed1 runs/seed2 --out compare.html\n");
  addFlags(command, DATA_FLAGS, { dtype: INFERENCE_DTYPE });
  command.action(async (first: string, second: string, flags: Flags) => {
    const { data = [], decoders, least, maxRows, out, force, json, csv } = flags;
    if (out !== undefined && force !== true) await refuseExisting(out);
    const asked = givenOptions(command);
    await using engine = await inferenceEngine(asked);
    await using a = await loadSae(first, { engine });
    await using b = await loadSae(second, { engine });
    const on =
      decoders === true
        ? undefined
        : await sharedData([resolve(a.path), resolve(b.path)], data, asked, {
            mend: "name the activations with --data, or compare --decoders",
            needsTarget: false,
            onNote: note,
          });
    const line: { stage?: string; progress?: ProgressLine } = {};
    try {
      const comparison = await compareSaes(a, b, {
        least,
        names: { a: first, b: second },
        on,
        maxRows,
        onProgress: (stage, done, total) => {
          if (line.stage !== stage) line.progress?.done();
          if (line.stage !== stage)
            line.progress = createProgressLine({ label: stage, total, unit: stage === "rows" ? "rows" : "latents" });
          line.stage = stage;
          line.progress?.update(done);
        },
      });
      line.progress?.done();
      if (out !== undefined) await writeComparisonHtml(comparison, { a: await namesOf(a), b: await namesOf(b) }, out);
      process.stdout.write(printed(comparison, { json, csv, out }));
    } finally {
      line.progress?.done();
      await on?.source.close();
    }
  });
}

function printed(comparison: Comparison, { json, csv, out }: Pick<Flags, "json" | "csv" | "out">): string {
  if (json === true) return `${JSON.stringify({ ...comparison, definitions: COMPARISON_DEFINITIONS })}\n`;
  if (csv === true) return `${comparisonCsv(comparison)}\n`;
  return `${comparisonText(comparison)}\n${out === undefined ? "" : `\npage           ${out}\n`}`;
}

/** What latents are called: by their names, and where there is a report by what they fire on. */
async function namesOf(sae: Sae & { readonly path: string }): Promise<readonly LatentName[]> {
  const { of: labels } = await labelsOf(sae.found);
  const words = await wordsOf(sae);
  if (words === undefined)
    note(`${sae.path} has no report: its latents are shown by number; saetta report makes one of a run`);
  return Array.from({ length: sae.dims.n }, (_, latent) => ({
    on: words?.[latent] ?? [],
    name: labels.get(latent)?.name ?? "",
  }));
}

/** The tokens that each latent fires on; undefined where there is no run, or no report of it. */
async function wordsOf({ path, dims }: Sae & { readonly path: string }) {
  const run = runFolderOf(resolve(path));
  const file = run && (await openFeatures(featuresFile(run)).catch(() => undefined));
  if (!file) return undefined;
  try {
    const { summary } = file.index;
    return summary.latents === dims.n ? await new FeatureReader(summary, file.read, path).names() : undefined;
  } finally {
    await file.close();
  }
}

function parseLeast(text: string): number {
  const least = Number(text);
  if (text.trim() !== "" && least > 0 && least <= 1) return least;
  throw new UsageError(`--least must be a number above 0 and at most 1, but is "${text}"`);
}
