/** `saetta label export`: from paths and flags to the file for a language model. */

import { writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { runFolderOf } from "../checkpoint/layout.ts";
import type { TrainOptions } from "../config.ts";
import { featuresFile } from "../explorer/api.ts";
import { openFeatures } from "../explorer/open.ts";
import { FeatureReader } from "../explorer/shared/reader.ts";
import { findTokenizer } from "../features/find-model.ts";
import { interpretationOf, randomPassages } from "../features/interpretation.ts";
import { labelsOf } from "../inference/labels.ts";
import { loadFound } from "../inference/sae.ts";
import { findSae } from "../inference/weights.ts";
import { refuseExisting } from "../util/atomic-write.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { counted } from "../util/format.ts";
import { parseCount } from "../util/numbers.ts";
import { evalData } from "./eval-data.ts";
import { inferenceEngine } from "./inference-engine.ts";
import { note } from "./note.ts";

export interface ExportFlags {
  readonly out?: string;
  readonly force?: boolean;
  readonly only?: string;
  readonly count?: number;
  readonly which?: "named" | "unnamed";
  readonly data?: readonly string[];
  readonly tokenizer?: string;
}

const COUNT = 50;

/** Writes the file; what is printed of it. */
export async function exportPassages(path: string, flags: ExportFlags, asked: TrainOptions): Promise<string> {
  const { out, force, data = [], tokenizer: named } = flags;
  if (out === undefined) throw new UsageError("label export needs --out FILE", { mend: "name the JSON file to write" });
  if (force !== true) await refuseExisting(out);
  const found = await findSae(path);
  const run = runFolderOf(resolve(found.path));
  const features = await openFeatures(featuresFile(run ?? resolve(found.path))).catch((cause: unknown) => {
    throw new SaettaError("has no features yet", {
      where: path,
      mend: "make them with saetta report RUN --data ACTS",
      cause,
    });
  });
  try {
    const { of: labels } = await labelsOf(found);
    const { summary } = features.index;
    const reader = new FeatureReader(summary, features.read, path, () => Promise.resolve(labels));
    const latents = await chosenLatents(reader, flags);
    await using engine = await inferenceEngine(asked);
    await using sae = await loadFound(found, found.path, { engine });
    const { source, ranges, nonFinite } = await evalData(resolve(sae.path), data, asked, {
      mend: "name the activations with --data",
      needsTarget: false,
      onNote: note,
    });
    try {
      const others = [sae.description.saetta?.tokenizer];
      const tokenizer = await findTokenizer(source, { asked: named, others }, note);
      if (tokenizer === undefined)
        throw new SaettaError("there is no text to read", { where: path, mend: "name the tokenizer with --tokenizer" });
      const random = await randomPassages(sae, source, ranges, tokenizer, nonFinite);
      const written = await interpretationOf(reader, latents, random, path);
      await writeFile(out, `${JSON.stringify(written)}\n`);
      return `passages     ${out}: ${counted(latents.length, "latent")}, and ${counted(random.length, "random passage")} to test them with\n`;
    } finally {
      await source.close();
    }
  } finally {
    await features.close();
  }
}

/** The latents that are asked for: a list, or those that are easiest to read. */
async function chosenLatents(reader: FeatureReader, { only: list, count = COUNT, which }: ExportFlags) {
  const { latents: all } = await reader.summary();
  if (list !== undefined)
    return [...new Set(list.split(",").map((text) => parseCount(text.trim(), "--only", 0, all - 1)))];
  const { rows } = await reader.latents({ search: "", sort: "score", descending: true, offset: 0, count: all });
  const isWanted = ({ label }: (typeof rows)[number]) =>
    which === undefined || (which === "named") === (label !== undefined && label.name !== "");
  return rows
    .filter((row) => row.firings > 0 && isWanted(row))
    .slice(0, count)
    .map(({ latent }) => latent);
}
