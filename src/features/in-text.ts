/** Some latents of an autoencoder in their text, with its report. */

import { atMost } from "../data/chunks.ts";
import type { Range } from "../data/holdout.ts";
import type { Source } from "../data/source.ts";
import type { Label } from "../explorer/shared/labels.ts";
import { labelsOf } from "../inference/labels.ts";
import { refuseWidth } from "../inference/refuse-width.ts";
import type { Sae } from "../inference/sae.ts";
import type { Tokenizer } from "../language-model/tokenizer.ts";
import { type EvalReport, evalReport, type ReportOptions } from "../metrics/report.ts";
import { SaettaError } from "../util/errors.ts";
import { counted, formatCount, formatPercent } from "../util/format.ts";
import { activePerRow, type CollectedFeatures, collectFeatures } from "./collect-features.ts";
import { chooseFeatures, type Feature, LEAST_CONTEXTS, LEAST_FIRINGS, mostDensity } from "./features.ts";
import { tokenizerOf } from "./find-model.ts";
import { type Example, examplesOf, textOfTokens, tokensOf } from "./row-text.ts";

export interface ShownFeature extends Omit<Feature, "tokens"> {
  readonly tokens: readonly (Feature["tokens"][number] & { readonly text: string })[];
  readonly examples: readonly Example[];
  /** Its name and note; null where it has neither. */
  readonly label: Label | null;
}

export interface ReportWithFeatures extends EvalReport {
  readonly features: readonly ShownFeature[];
  /** Why fewer latents are shown than were asked for; null where they are not fewer. */
  readonly featuresNote: string | null;
}

/** What is shown of the latents, and with what. */
interface Shown {
  /** How many latents; default none. */
  readonly features?: number | undefined;
  /** Path of the tokenizer.json; default: the one that the activations name. */
  readonly tokenizer?: string | undefined;
  readonly onNote?: ((note: string) => void) | undefined;
}

/** Lines of text a latent. */
const EXAMPLES = 5;
/** Tokens a latent whose names are given. */
const TOKENS = 16;

/**
 * The report, and `count` latents in their text, from one pass over the rows. Throws as
 * `evalReport` does, and where there is no text.
 */
export async function reportWithFeatures(
  sae: Sae,
  source: Source,
  ranges: readonly Range[],
  { features: count = 0, ...options }: ReportOptions & Shown = {},
): Promise<ReportWithFeatures> {
  if (count === 0) return { ...(await evalReport(sae, source, ranges, options)), features: [], featuresNote: null };
  refuseWidth(sae, source);
  const tokenizer = await tokenizerToShow(sae, source, options);
  const collected = await collectFeatures(sae, source, atMost(ranges, options.maxRows ?? Number.POSITIVE_INFINITY), {
    textOf: textOfTokens(tokenizer),
    nonFinite: options.nonFinite,
    onProgress: (_, rows, all) => options.onProgress?.(rows, all),
  });
  const report = await evalReport(sae, source, ranges, { ...options, metrics: collected.metrics });
  const { of: labels } = await labelsOf(sae.found);
  const shown = await showFeatures(source, collected, tokenizer, count);
  const features = shown.map((feature) => ({ ...feature, label: labels.get(feature.latent) ?? null }));
  const featuresNote =
    features.length < count ? whyFewer(collected, features.length, count, activePerRow(sae, collected.metrics)) : null;
  return { ...report, features, featuresNote };
}

/** Why fewer latents are shown than were asked for. */
function whyFewer({ features, metrics }: CollectedFeatures, shown: number, asked: number, k: number): string {
  const { rows, latents } = metrics;
  const candidates = features.filter(({ score }) => score > 0).length;
  const most = formatPercent(mostDensity(k, latents));
  const rule = `at least ${LEAST_FIRINGS} times, in ${LEAST_CONTEXTS} contexts or more and on at most ${most} of the ${counted(rows, "row")}`;
  const all = `${formatCount(candidates)} of ${counted(latents, "latent")} ${candidates === 1 ? "fires" : "fire"} ${rule}`;
  const alike = shown < candidates ? "; of those that share one of their three main tokens only one is shown" : "";
  return `${formatCount(shown)} of the ${counted(asked, "latent")} asked for: ${all}${alike}`;
}

async function tokenizerToShow(sae: Sae, source: Source, { tokenizer: asked, onNote }: Shown): Promise<Tokenizer> {
  tokensOf(source);
  const others = [sae.description.saetta?.tokenizer];
  const tokenizer = await tokenizerOf(source, { asked, others }, onNote ?? (() => undefined));
  if (tokenizer !== undefined) return tokenizer;
  throw new SaettaError("does not say which tokenizer its tokens are of (attribute tokenizer)", {
    where: source.paths.join(", "),
    mend: "name it with --tokenizer PATH, or leave out --features",
  });
}

async function showFeatures(
  source: Source,
  { features, profiles }: CollectedFeatures,
  tokenizer: Tokenizer,
  count: number,
): Promise<Omit<ShownFeature, "label">[]> {
  const textOf = textOfTokens(tokenizer);
  const shown: Omit<ShownFeature, "label">[] = [];
  for (const feature of chooseFeatures(features, count, textOf)) {
    const tokens = feature.tokens.slice(0, TOKENS).map((use) => ({ ...use, text: textOf(use.token) }));
    shown.push({
      ...feature,
      tokens,
      examples: await examplesOf(profiles.strongest(feature.latent), source, tokenizer, EXAMPLES),
    });
  }
  return shown;
}
