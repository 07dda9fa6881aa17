/** `saetta eval`: an autoencoder and rows in, everything it prints out. */

import type { NonFinite } from "../data/batches.ts";
import { atMost, rowsOf } from "../data/chunks.ts";
import { countRows, type Range } from "../data/holdout.ts";
import type { Source } from "../data/source.ts";
import { type CollectedFeatures, collectFeatures } from "../features/collect-features.ts";
import { chooseFeatures, type Feature, LEAST_CONTEXTS, LEAST_FIRINGS, mostDensity } from "../features/features.ts";
import { type Example, examplesOf, textOfTokens, tokensOf } from "../features/row-text.ts";
import { loadSae, type Sae } from "../inference/sae.ts";
import { loadTokenizer, type Tokenizer } from "../language-model/tokenizer.ts";
import { hasCode, SaettaError } from "../util/errors.ts";
import { counted, formatCount, formatPercent } from "../util/format.ts";
import { type Evaluation, evaluate } from "./evaluate.ts";

export interface ShownFeature extends Omit<Feature, "tokens"> {
  readonly tokens: readonly (Feature["tokens"][number] & { readonly text: string })[];
  readonly examples: readonly Example[];
}

export interface EvalReport {
  readonly autoencoder: string;
  /** Training steps behind the weights; null in files of others. */
  readonly step: number | null;
  readonly weights: "ema" | "raw";
  readonly engine: string;
  readonly data: string;
  readonly metrics: Evaluation;
  /** FVU of the averaged weights with their decoder rows as short as averaging makes them; null where raw weights are used. */
  readonly fvuWithoutUnitDecoder: number | null;
  readonly features: readonly ShownFeature[];
  /** Why fewer latents are shown than were asked for; null where they are not fewer. */
  readonly featuresNote: string | null;
}

export interface ReportOptions {
  /** Latents to show in their text. */
  readonly features?: number | undefined;
  readonly maxRows?: number | undefined;
  readonly nonFinite?: NonFinite | undefined;
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** Lines of text a latent. */
const EXAMPLES = 5;
/** Tokens a latent whose names are given. */
const TOKENS = 16;

/** Evaluates `sae` on the rows of the ranges. Throws SaettaError when the widths differ, there are no rows, or features are asked for and there is no text. */
export async function evalReport(
  sae: Sae,
  source: Source,
  ranges: readonly Range[],
  options: ReportOptions = {},
): Promise<EvalReport> {
  const { features = 0, maxRows = Number.POSITIVE_INFINITY, nonFinite = "stop", onProgress } = options;
  const { k } = sae;
  const { dIn: d } = sae.dims;
  if (source.dIn !== d) {
    throw new SaettaError(
      `rows have ${source.dIn} numbers, but the autoencoder${sae.path === undefined ? "" : ` in ${sae.path}`} takes ${d}`,
      {
        where: source.paths.join(", "),
      },
    );
  }
  const chosen = atMost(ranges, maxRows);
  const tokenizer = features > 0 ? await tokenizerOf(sae, source) : undefined;
  const total = countRows(chosen);
  let done = 0;
  const collected =
    tokenizer &&
    (await collectFeatures(sae, source, chosen, {
      textOf: textOfTokens(tokenizer),
      nonFinite,
      onProgress: (_, rows, all) => onProgress?.(rows, all),
    }));
  const metrics =
    collected?.metrics ??
    (await evaluate(sae, source.dtype, rowsOf(source, chosen, nonFinite), {
      onChunk: (chunk) => {
        done += chunk.rows;
        onProgress?.(done, total);
      },
    }));
  let fvuWithoutUnitDecoder: number | null = null;
  if (sae.weights === "ema" && sae.path !== undefined) {
    await using short = await loadSae(sae.path, { engine: sae.engine, weights: "ema", unitDecoder: false });
    fvuWithoutUnitDecoder = (await evaluate(short, source.dtype, rowsOf(source, chosen, nonFinite))).fvu;
  }
  const shown = tokenizer && collected ? await showFeatures(source, collected, tokenizer, features) : [];
  return {
    autoencoder: sae.path ?? "in memory",
    step: sae.found.step ?? null,
    weights: sae.weights,
    engine: sae.engine.description,
    data: source.description,
    metrics,
    fvuWithoutUnitDecoder,
    features: shown,
    featuresNote: collected && shown.length < features ? whyFewer(collected, shown.length, features, k) : null,
  };
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

async function tokenizerOf(sae: Sae, source: Source): Promise<Tokenizer> {
  tokensOf(source);
  const path = source.origin.tokenizer ?? sae.description.saetta?.tokenizer;
  if (path === undefined) {
    throw new SaettaError("does not say which tokenizer its tokens are of (attribute tokenizer)", {
      where: source.paths.join(", "),
      mend: "leave out --features",
    });
  }
  return loadTokenizer(path).catch((cause: unknown) => {
    if (!hasCode(cause, "ENOENT") && cause instanceof SaettaError && !hasCode(cause.cause, "ENOENT")) throw cause;
    throw new SaettaError("the tokenizer that the activations were made with is not there any more", {
      where: path,
      mend: "put it back, or leave out --features",
      cause,
    });
  });
}

async function showFeatures(
  source: Source,
  { features, profiles }: CollectedFeatures,
  tokenizer: Tokenizer,
  count: number,
): Promise<ShownFeature[]> {
  const textOf = textOfTokens(tokenizer);
  const shown: ShownFeature[] = [];
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
