/** `saetta report`: an autoencoder and activations in, a page of its features out. */

import { rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { runFolderOf } from "../checkpoint/layout.ts";
import type { Range } from "../data/holdout.ts";
import type { Source } from "../data/source.ts";
import { featuresFile } from "../explorer/api.ts";
import { writeHtml } from "../explorer/html.ts";
import { openFeatures } from "../explorer/open.ts";
import { FeatureReader } from "../explorer/shared/reader.ts";
import { labelsOf } from "../inference/labels.ts";
import type { Sae } from "../inference/sae.ts";
import type { FeatureSummary } from "../run-files/feature-summary.ts";
import { atomicWrite } from "../util/atomic-write.ts";
import { makeFolders } from "../util/folders.ts";
import { findModel, findTokenizer } from "./find-model.ts";
import { latentsCsv, writeNeuronpedia, writeSaeDashboard } from "./viewers.ts";
import { type FeatureReportOptions, writeFeatureReport } from "./write-features.ts";

export const REPORT_FORMATS = ["html", "csv", "neuronpedia", "saedashboard"] as const;
export type ReportFormat = (typeof REPORT_FORMATS)[number];

export interface HtmlReportOptions extends Omit<FeatureReportOptions, "tokenizer" | "model"> {
  /**
   * Path of the ONNX model that the activations are of; default: the one that they name, if it is
   * there.
   */
  readonly model?: string | undefined;
  /** Path of its tokenizer.json; default: the one that the activations name, if it is there. */
  readonly tokenizer?: string | undefined;
  /**
   * Whose files to write; default: a page. Those of "neuronpedia" and "saedashboard" are a folder.
   */
  readonly format?: ReportFormat | undefined;
  /** Told in a line what is left out, and why. */
  readonly onNote: (note: string) => void;
}

/**
 * Writes the page to `out`. The features of a run's checkpoint stay in the run's folder `features`,
 * from where they are served. Rejects with SaettaError when rows, model or file are not as they
 * must be.
 */
export async function writeHtmlReport(
  sae: Sae,
  source: Source,
  ranges: readonly Range[],
  options: HtmlReportOptions,
): Promise<FeatureSummary> {
  const { out, format = "html", onNote } = options;
  await makeFolders(dirname(resolve(out)));
  const model = await findModel(source, options.model, onNote);
  const beside = model && join(dirname(model.path), "tokenizer.json");
  const others = [sae.description.saetta?.tokenizer, beside];
  const tokenizer = await findTokenizer(source, { asked: options.tokenizer, others }, onNote);
  const run = sae.path === undefined ? undefined : runFolderOf(resolve(sae.path));
  const path = run === undefined ? `${out}.features` : featuresFile(run);
  if (run !== undefined) await makeFolders(dirname(path));
  try {
    const summary = await writeFeatureReport(sae, source, ranges, { ...options, out: path, tokenizer, model });
    const features = await openFeatures(path);
    try {
      const { of: labels } = await labelsOf(sae.found);
      const reader = new FeatureReader(summary, features.read, path, () => Promise.resolve(labels));
      if (format === "html") await writeHtml(features, out, { labels });
      else if (format === "csv")
        await atomicWrite(out, async (write) => write(Buffer.from(`${await latentsCsv(reader)}\n`)));
      else if (format === "saedashboard") await writeSaeDashboard(reader, out);
      else await writeNeuronpedia(reader, out);
    } finally {
      await features.close();
    }
    return summary;
  } finally {
    if (run === undefined) await rm(path, { force: true });
  }
}
