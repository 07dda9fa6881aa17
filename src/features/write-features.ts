/**
 * The features file of an autoencoder: one pass over activations, then what follows from the
 * weights alone.
 */

import { availableParallelism } from "node:os";
import { basename, dirname, isAbsolute, join } from "node:path";
import { runFolderOf } from "../checkpoint/layout.ts";
import type { NonFinite } from "../data/batches.ts";
import { atMost } from "../data/chunks.ts";
import type { Range } from "../data/holdout.ts";
import type { Source } from "../data/source.ts";
import {
  type DocumentPlace,
  documentChunk,
  type LatentWords,
  PER_SHARD,
  PER_TEXT,
  type StoredDocument,
  type StoredLatent,
  type StoredPassage,
  type TokenEffect,
} from "../explorer/shared/format.ts";
import { FeatureWriter } from "../explorer/write.ts";
import { refuseWidth } from "../inference/refuse-width.ts";
import type { Sae } from "../inference/sae.ts";
import type { LanguageModel } from "../language-model/load.ts";
import type { Tokenizer } from "../language-model/tokenizer.ts";
import { openUnembedding } from "../language-model/unembedding.ts";
import type { Evaluation } from "../metrics/evaluate.ts";
import type { FeatureSummary } from "../run-files/feature-summary.ts";
import { bytesOf } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import type { SampledCodes } from "./code-sample.ts";
import { activePerRow, collectFeatures } from "./collect-features.ts";
import { chooseDocuments, documentsOfLatents, encodeDocuments } from "./documents.ts";
import type { Feature } from "./features.ts";
import { BEFORE, type KeptFiring } from "./kept-firings.ts";
import { latentMap } from "./latent-map.ts";
import { decoderDirections, type Nearest, nearestLatents } from "./nearest.ts";
import { PassageTexts } from "./passage-texts.ts";
import type { Profiles } from "./profiles.ts";
import { TokenBlocks, textOfTokens } from "./row-text.ts";
import { firingTogether } from "./together.ts";

export interface FeatureReportOptions {
  /** The file to write. */
  readonly out: string;
  /** Of the tokens in the source; without it they are shown as numbers. */
  readonly tokenizer?: Tokenizer | undefined;
  /** The model that the activations are of, for what latents do to its output. */
  readonly model?: LanguageModel | undefined;
  /**
   * FVU on rows that the run of the autoencoder held out, where it is known; "these": the rows of
   * the report are those.
   */
  readonly heldOut?: FeatureSummary["heldOut"] | "these" | undefined;
  readonly maxRows?: number | undefined;
  readonly nonFinite?: NonFinite | undefined;
  readonly onProgress?: ((stage: Stage, done: number, total: number) => void) | undefined;
}

/** "count": the rows once more, where there are more counts than memory may hold. */
export type Stage = "read" | "count" | "compare" | "write";

/** Passages of the strongest firings that are shown, and of each range. */
const STRONGEST_SHOWN = 12;
const SAMPLES_SHOWN = 2;
const NEAREST = 8;
const TOGETHER = 8;
const DOCUMENTS = 4;
const EFFECTS = 10;
const TOKENS = 10;
/** Tokens that stand for a latent in the list, and are searched. */
const WORDS = 6;
/** Directions that go through the unembedding at once. */
const EFFECTS_AT_ONCE = 256;

/**
 * Writes the features file of `sae` on the rows of the ranges. Throws SaettaError when the widths
 * differ, there are no rows, or the model is of another width.
 */
export async function writeFeatureReport(
  sae: Sae,
  source: Source,
  ranges: readonly Range[],
  options: FeatureReportOptions,
): Promise<FeatureSummary> {
  const { out, tokenizer, maxRows = Number.POSITIVE_INFINITY, nonFinite = "stop", onProgress } = options;
  const { n } = sae.dims;
  refuseWidth(sae, source);
  const chosen = atMost(ranges, maxRows);
  const textOf = tokenizer === undefined ? (token: number) => `⟨${token}⟩` : textOfTokens(tokenizer);
  const { metrics, profiles, sample, features } = await collectFeatures(sae, source, chosen, {
    textOf: tokenizer && textOf,
    nonFinite,
    onProgress,
  });
  const nearest = await nearestLatents(sae, Math.min(NEAREST, n - 1), (done) => onProgress?.("compare", done, n));
  const places = source.tokens === undefined ? [] : await chooseDocuments(source, profiles);
  const documents = await encodeDocuments(sae, source, places, chosen, nonFinite);
  const writer = await FeatureWriter.create(out);
  try {
    const summary = summaryOf(sae, source, metrics, features, options);
    await writeAll(writer, { sae, source, profiles, sample, documents, features, nearest, textOf, options });
    await writer.finish(summary);
    return summary;
  } catch (thrown) {
    await writer.abandon();
    throw thrown;
  }
}

interface Material {
  readonly sae: Sae;
  readonly source: Source;
  readonly profiles: Profiles;
  readonly sample: SampledCodes;
  readonly documents: readonly Omit<StoredDocument, "tokens">[];
  readonly features: readonly Feature[];
  readonly nearest: Nearest;
  readonly textOf: (token: number) => string;
  readonly options: FeatureReportOptions;
}

async function writeAll(writer: FeatureWriter, material: Material): Promise<void> {
  const { sae, source, features, textOf, options } = material;
  const { dIn: d, n } = sae.dims;
  const texts = source.tokens && new PassageTexts(source);
  for (let latent = 0; texts && latent < n; latent++)
    for (const { number } of shownOf(material.profiles, latent).all) await texts.add(number);
  texts?.join();
  const words: LatentWords[] = [];
  const together = firingTogether(material.sample, n, TOGETHER);
  const inDocuments = documentsOfLatents(material.documents, n, DOCUMENTS);
  const decoder = await sae.parameter("decoder");
  await using unembedding = options.model && (await openUnembedding(options.model, availableParallelism()));
  if (unembedding !== undefined && unembedding.width !== d) {
    throw new SaettaError(
      `the model's residual stream has width ${unembedding.width}, but the autoencoder takes ${d}`,
      {
        where: options.model?.path,
        mend: "name the model that the activations are of, or leave out --model",
      },
    );
  }
  for (let first = 0; first < n; first += EFFECTS_AT_ONCE) {
    const end = Math.min(n, first + EFFECTS_AT_ONCE);
    const effects = await unembedding?.effects(decoder.slice(first * d, end * d));
    for (let shard = first; shard < end; shard += PER_SHARD) {
      const stored: StoredLatent[] = [];
      for (let latent = shard; latent < Math.min(end, shard + PER_SHARD); latent++) {
        const row =
          effects &&
          unembedding &&
          effects.subarray((latent - first) * unembedding.tokens, (latent - first + 1) * unembedding.tokens);
        const others = together.next().value ?? [];
        const more = { together: others, documents: inDocuments[latent] };
        stored.push({ ...(await latentOf(material, latent, row, texts)), ...more });
        const up = stored.at(-1)?.promoted ?? [];
        const on = features[latent].tokens.slice(0, WORDS);
        words.push({
          on: on.map(({ token }) => textOf(token)),
          shares: on.map(({ share }) => rounded(share)),
          up: up.slice(0, WORDS).map(({ text }) => text),
        });
      }
      await writer.json(`latents/${shard / PER_SHARD}`, stored);
    }
    options.onProgress?.("write", end, n);
  }
  await writeTexts(writer, texts, options.tokenizer);
  await writeDocuments(writer, material);
  const { x, y } = latentMap(await decoderDirections(sae), sae.dims.dOut, material.nearest);
  await writer.bytes("map", Buffer.concat([bytesOf(x), bytesOf(y)]));
  const column = (of: (feature: Feature) => number) => bytesOf(Float32Array.from(features, of));
  const firings = bytesOf(Uint32Array.from(features, (feature) => feature.firings));
  const columns = [
    firings,
    column(({ max }) => max),
    column(({ energyShare }) => energyShare),
    column(({ score }) => score),
  ];
  await writer.bytes("table", Buffer.concat(columns));
  await writer.json("words", words);
}

async function writeDocuments(writer: FeatureWriter, { source, documents, options }: Material): Promise<void> {
  const blocks = new TokenBlocks(source);
  const places: DocumentPlace[] = [];
  for (const [i, document] of documents.entries()) {
    const length = document.begin.length - 1;
    const ids = await blocks.read(document.row, document.row + length);
    const tokens = options.tokenizer?.pieces(ids) ?? Array.from(ids, (id) => `⟨${id}⟩`);
    await writer.json(documentChunk(i), { ...document, tokens } satisfies StoredDocument);
    places.push({ row: document.row, length });
  }
  await writer.json("documents", places);
}

async function writeTexts(
  writer: FeatureWriter,
  texts: PassageTexts | undefined,
  tokenizer: Tokenizer | undefined,
): Promise<void> {
  let held: string[] = [];
  let chunk = 0;
  for await (const some of texts?.texts(tokenizer) ?? []) {
    held = held.concat(some);
    for (; held.length >= PER_TEXT; held = held.slice(PER_TEXT))
      await writer.json(`text/${chunk++}`, held.slice(0, PER_TEXT));
  }
  if (held.length > 0) await writer.json(`text/${chunk}`, held);
}

/**
 * The firings of a latent that are shown: the strongest, and of each range some of other contexts.
 */
function shownOf(profiles: Profiles, latent: number) {
  const strongest = profiles.strongest(latent).slice(0, STRONGEST_SHOWN);
  const contexts = new Set(strongest.map(({ context }) => context));
  const ranges = profiles.ranges(latent).map((range) => {
    const sample = range.sample
      .filter(({ context }) => !contexts.has(context) && contexts.add(context))
      .slice(0, SAMPLES_SHOWN);
    return { ...range, sample };
  });
  return { strongest, ranges, all: [...strongest, ...ranges.flatMap(({ sample }) => sample)] };
}

async function latentOf(
  material: Material,
  latent: number,
  effects: Float32Array | undefined,
  texts: PassageTexts | undefined,
): Promise<StoredLatent> {
  const { profiles, features, nearest, textOf, options } = material;
  const { contexts, tokens, max } = features[latent];
  const { strongest, ranges } = shownOf(profiles, latent);
  // Models have more rows than their tokenizers have tokens, for a round number.
  const known = effects?.subarray(0, options.tokenizer?.vocabSize);
  const { width, counts } = profiles.histogram(latent);
  const passages = (all: readonly KeptFiring[]) => Promise.all(all.map((firing) => passageOf(firing, max, texts)));
  const near = nearest.latent.subarray(latent * nearest.count, (latent + 1) * nearest.count);
  const cosines = nearest.cosine.subarray(latent * nearest.count, (latent + 1) * nearest.count);
  return {
    contexts,
    histogram: { width, counts },
    strongest: await passages(strongest),
    ranges: await Promise.all(
      ranges.map(async ({ from, to, firings, sample }) => ({ from, to, firings, passages: await passages(sample) })),
    ),
    tokens: tokens.slice(0, TOKENS).map(({ token, share, ...counted }) => ({
      text: textOf(token),
      firings: counted.firings,
      occurrences: counted.occurrences,
      share: rounded(share),
    })),
    nearest: Array.from(near, (other, i) => ({ latent: other, cosine: rounded(cosines[i]) })).filter(
      ({ cosine }) => cosine > 0,
    ),
    promoted: known ? extremes(known, 1, textOf) : null,
    suppressed: known ? extremes(known, -1, textOf) : null,
  };
}

/**
 * `max`: the latent's largest value, which no value of the passage exceeds after rounding either.
 */
async function passageOf(
  { value, number, around }: KeptFiring,
  max: number,
  texts: PassageTexts | undefined,
): Promise<StoredPassage> {
  const shown = (each: number) => Math.min(max, rounded(each));
  const span = await texts?.spanOf(number);
  if (texts === undefined || span === undefined)
    return { value: shown(value), row: number, text: -1, length: 0, at: 0, active: [] };
  const at = number - span.first;
  const length = span.end - span.first;
  const active: number[] = [];
  for (let token = 0; token < length; token++) {
    const on = token === at ? value : around[token - at + BEFORE];
    if (on > 0) active.push(token, shown(on));
  }
  return { value: shown(value), row: number, text: texts.textOf(span.first), length, at, active };
}

/**
 * The tokens with the largest effects, or the most negative ones (`sign` -1), the strongest first.
 */
function extremes(effects: Float32Array, sign: 1 | -1, textOf: (token: number) => string): TokenEffect[] {
  const best: { token: number; effect: number }[] = [];
  let least = 0;
  for (let token = 0; token < effects.length; token++) {
    const effect = effects[token] * sign;
    if (!(effect > least)) continue;
    let place = best.length;
    while (place > 0 && best[place - 1].effect < effect) place--;
    best.splice(place, 0, { token, effect });
    if (best.length > EFFECTS) best.pop();
    if (best.length === EFFECTS) least = best[EFFECTS - 1].effect;
  }
  return best.map(({ token, effect }) => ({ text: textOf(token), effect: rounded(effect * sign) }));
}

function summaryOf(
  sae: Sae,
  source: Source,
  metrics: Evaluation,
  features: readonly Feature[],
  options: FeatureReportOptions,
): FeatureSummary {
  const { n, dIn: d } = sae.dims;
  const model = source.origin.model ?? sae.description.saetta?.model;
  const best = features.reduce((a, b) =>
    b.score > a.score || (b.score === a.score && b.energyShare > a.energyShare) ? b : a,
  );
  return {
    title: sae.path === undefined ? "in memory" : shortened(runFolderOf(sae.path) ?? sae.path),
    step: sae.found.step ?? null,
    latents: n,
    k: rounded(activePerRow(sae, metrics)),
    width: d,
    rows: metrics.rows,
    data: source.paths.reduce((text, path) => text.replaceAll(path, shortened(path)), source.description),
    model: model === undefined ? null : shortened(model),
    tensor: source.origin.tensor ?? sae.description.saetta?.tensor ?? null,
    sequence: source.sequence ?? null,
    fvu: metrics.fvu,
    heldOut: options.heldOut === "these" ? { fvu: metrics.fvu, rows: metrics.rows } : (options.heldOut ?? null),
    l0: metrics.l0,
    dead: metrics.dead,
    density: metrics.density,
    first: best.latent,
    text: source.tokens !== undefined,
    logits: options.model !== undefined,
  };
}

/** Who is given a page need not know where on its machine its maker keeps things. */
function shortened(path: string): string {
  return isAbsolute(path) ? join(basename(dirname(path)), basename(path)) : path;
}

/** Four digits are more than a page shows. */
function rounded(value: number): number {
  return Number(value.toPrecision(4));
}
