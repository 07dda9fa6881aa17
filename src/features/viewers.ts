/**
 * Features as the files of other viewers: SAEDashboard's batches, Neuronpedia's import, a table.
 * The schemas are those of SAEDashboard's `neuronpedia_dashboard.py` and `neuronpedia_export.py`.
 */

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { FeatureReader } from "../explorer/shared/reader.ts";
import type { Latent, Passage } from "../explorer/shared/source.ts";
import type { FeatureSummary } from "../run-files/feature-summary.ts";
import { csv } from "../util/csv.ts";

/** Latents of a file. */
const BATCH = 128;
/** SAEDashboard's marks of the group of strongest passages. */
const TOP = -1;

export interface ViewerNames {
  readonly model: string;
  /** Number of the layer, and of which set the autoencoder is. */
  readonly layer: number;
  readonly set: string;
}

/** A model's name from its path, and the layer from its tensor's, where they say them. */
export function viewerNames({ model, tensor, title }: FeatureSummary): ViewerNames {
  const plain = (text: string) =>
    text
      .replace(/\.onnx$/, "")
      .replace(/[^\w.-]+/g, "-")
      .replace(/^-+|-+$/g, "");
  const [, layer = "0"] = /(?:\.|\b(?:h|layers?|blocks?)[._])(\d+)\b/.exec(tensor ?? "") ?? [];
  return { model: plain(model ?? "") || "model", layer: Number(layer), set: plain(title) || "sae" };
}

/** Writes batch-0.json, batch-1.json, ... into a folder; gives back their names. */
export async function writeSaeDashboard(reader: FeatureReader, out: string): Promise<string[]> {
  const summary = await reader.summary();
  const { model, layer, set } = viewerNames(summary);
  await mkdir(out, { recursive: true });
  const files: string[] = [];
  for await (const features of batches(reader, summary)) {
    const name = `batch-${files.length}.json`;
    await writeFile(join(out, name), JSON.stringify({ model_id: model, layer, sae_set: set, features }));
    files.push(name);
  }
  return files;
}

/** Writes MODEL/LAYER-SET/ with the tables that Neuronpedia imports; gives back its path. */
export async function writeNeuronpedia(reader: FeatureReader, out: string, now = new Date()): Promise<string> {
  const summary = await reader.summary();
  const { model: modelId, layer, set } = viewerNames(summary);
  const source = `${layer}-${set}`;
  const folder = join(out, modelId, source);
  const common = { creatorId: "saetta", createdAt: now.toISOString() };
  for (const name of ["features", "activations"]) await mkdir(join(folder, name), { recursive: true });
  const table = (name: string, row: object) => writeFile(join(folder, name), jsonLines([{ ...row, ...common }]));
  await table("release.jsonl", { name: set, description: summary.title, creatorName: "saetta", visibility: "PUBLIC" });
  await table("model.jsonl", { id: modelId, instruct: false, displayName: modelId, displayNameShort: modelId });
  await table("sourceset.jsonl", {
    modelId,
    name: set,
    description: summary.title,
    creatorName: "saetta",
    releaseName: set,
  });
  await table("source.jsonl", {
    id: source,
    modelId,
    setName: set,
    dataset: summary.data,
    num_prompts: summary.sequence === null ? null : Math.ceil(summary.rows / summary.sequence),
    num_tokens_in_prompt: summary.sequence,
  });
  let batch = 0;
  for await (const dashboards of batches(reader, summary)) {
    const name = `batch-${batch}.jsonl.gz`;
    const named = { modelId, layer: source };
    const features = dashboards.map(
      ({ feature_index, activations, n_prompts_total, n_tokens_in_prompt, dataset, ...rest }) => ({
        ...named,
        index: String(feature_index),
        ...common,
        maxActApprox: Math.max(0, ...activations.flatMap(({ values }) => values)),
        hasVector: false,
        vector: [],
        hookName: summary.tensor,
        sourceSetName: set,
        ...rest,
      }),
    );
    const activations = dashboards.flatMap(({ feature_index, activations: all }) =>
      all.map(({ tokens, values, bin_min, bin_max, bin_contains, qualifying_token_index }, i) => {
        const maxValue = Math.max(...values);
        return {
          id: `saetta-${feature_index}-${i}`,
          ...named,
          index: String(feature_index),
          ...common,
          tokens,
          values,
          maxValue,
          maxValueTokenIndex: values.indexOf(maxValue),
          minValue: Math.min(...values),
          binMin: bin_min,
          binMax: bin_max,
          binContains: bin_contains,
          qualifyingTokenIndex: qualifying_token_index,
        };
      }),
    );
    await writeFile(join(folder, "features", name), gzipSync(jsonLines(features)));
    await writeFile(join(folder, "activations", name), gzipSync(jsonLines(activations)));
    batch++;
  }
  return folder;
}

const jsonLines = (rows: readonly object[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");

async function* batches(reader: FeatureReader, summary: FeatureSummary) {
  for (let first = 0; first < summary.latents; first += BATCH) {
    const features: DashboardFeature[] = [];
    for (let latent = first; latent < Math.min(summary.latents, first + BATCH); latent++)
      features.push(dashboardOf(await reader.latent(latent), summary));
    yield features;
  }
}

type DashboardFeature = ReturnType<typeof dashboardOf>;

/** A latent as NeuronpediaDashboardFeature. What Saetta does not compute is empty. */
export function dashboardOf(latent: Latent, { rows, sequence, data }: FeatureSummary) {
  const { width, counts } = latent.histogram;
  const activation = (bin: readonly [min: number, max: number, contains: number]) => (passage: Passage) => ({
    bin_min: bin[0],
    bin_max: bin[1],
    bin_contains: bin[2],
    tokens: passage.tokens,
    values: passage.values,
    qualifying_token_index: passage.at,
  });
  const all = [
    ...latent.strongest.map(activation([TOP, latent.max, TOP])),
    ...latent.ranges.flatMap(({ from, to, firings, passages }) =>
      passages.map(activation([from, to, firings / Math.max(1, latent.firings)])),
    ),
  ];
  const [neg, pos] = [latent.suppressed ?? [], latent.promoted ?? []];
  return {
    feature_index: latent.latent,
    neuron_alignment_indices: [] as number[],
    neuron_alignment_values: [] as number[],
    neuron_alignment_l1: [] as number[],
    correlated_neurons_indices: [] as number[],
    correlated_neurons_l1: [] as number[],
    correlated_neurons_pearson: [] as number[],
    correlated_features_indices: [] as number[],
    correlated_features_l1: [] as number[],
    correlated_features_pearson: [] as number[],
    neg_str: neg.map(({ text }) => text),
    neg_values: neg.map(({ effect }) => effect),
    pos_str: pos.map(({ text }) => text),
    pos_values: pos.map(({ effect }) => effect),
    frac_nonzero: latent.density,
    freq_hist_data_bar_values: counts.map((_, i) => (i + 0.5) * width),
    freq_hist_data_bar_heights: counts,
    logits_hist_data_bar_heights: [] as number[],
    logits_hist_data_bar_values: [] as number[],
    n_prompts_total: sequence === null ? 0 : Math.ceil(rows / sequence),
    n_tokens_in_prompt: sequence ?? 0,
    dataset: data,
    decoder_weights_dist: [] as number[],
    activations: all.filter(({ tokens }) => tokens.length > 0),
  };
}

/** The table of latents, a line each. */
export async function latentsCsv(reader: FeatureReader): Promise<string> {
  const { latents } = await reader.summary();
  const query = { search: "", sort: "latent", descending: false, offset: 0, count: latents } as const;
  const { rows } = await reader.latents(query);
  const head = ["latent", "name", "note", "firings", "density", "max", "importance", "score", "fires_on", "promotes"];
  return csv([
    head,
    ...rows.map(({ latent, label, firings, density, max, importance, score, on, up }) => [
      ...[latent, label?.name, label?.note, firings, density, max, importance, score],
      ...[on, up].map((tokens) => JSON.stringify(tokens)),
    ]),
  ]);
}
