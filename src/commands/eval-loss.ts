/** What `saetta eval --loss` needs: the language model, its tensor, and text. */

import type { Source } from "../data/source.ts";
import { modelPath } from "../features/find-model.ts";
import { tokenize } from "../harvest/harvest.ts";
import type { Sae } from "../inference/sae.ts";
import { contextOf, type LanguageModel, loadModel, loadTokenizerOf } from "../language-model/load.ts";
import { ablationOf } from "../metrics/ablation.ts";
import { type Ablate, type LossRecovered, measureLoss } from "../metrics/loss.ts";
import { type Contexts, contextsOfIds, contextsOfSource } from "../metrics/loss-contexts.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import type { EvalData } from "./eval-data.ts";

export interface LossFlags {
  readonly loss?: boolean;
  readonly model?: string;
  readonly tensor?: string;
  readonly text?: string;
  readonly tokenizer?: string;
  readonly lossTokens?: number;
  /** Rows that zeros and the mean replace, or latents that are removed. */
  readonly ablate?: Ablate | readonly number[];
  readonly threads?: number | undefined;
}

/** Tokens that are run through the model unless more are asked for. */
export const LOSS_TOKENS = 100_000;

/**
 * One result an autoencoder; undefined unless asked for, by --loss or a flag that makes no sense
 * without it.
 */
export async function lossesOf(
  saes: readonly Sae[],
  data: EvalData,
  flags: LossFlags,
  tell: { readonly onNote: (note: string) => void; readonly onProgress: (done: number, total: number) => void },
): Promise<LossRecovered[] | undefined> {
  const { ablate } = flags;
  const latents = typeof ablate === "object" ? ablate : undefined;
  const given = [flags.model, flags.tensor, flags.text, latents];
  if (flags.loss !== true && given.every((each) => each === undefined)) return undefined;
  const { origin } = data.source;
  const path = flags.model ?? (await modelPath(data.source, first(saes, "model"), tell.onNote));
  if (path === undefined) throw unknown("model", "--model PATH");
  const tensor = flags.tensor ?? origin.tensor ?? first(saes, "tensor");
  if (tensor === undefined) throw unknown("tensor", "--tensor NAME");
  checkTensors(saes, tensor, flags.tensor !== undefined);
  const model = await loadModel(path);
  checkModel(model, data.source, flags.model !== undefined, tell.onNote);
  const contexts = await contextsFor(model, data, flags, tell.onNote);
  return measureLoss(model, tensor, contexts, saes, {
    ablate: typeof ablate === "string" ? ablate : undefined,
    ablation: latents && (await ablationOf(saes[0]!, latents)),
    threads: flags.threads,
    onNote: tell.onNote,
    onProgress: tell.onProgress,
  });
}

async function contextsFor(
  model: LanguageModel,
  { source, ranges, excludeTokens, excludePositions }: EvalData,
  { text, tokenizer: asked, lossTokens = LOSS_TOKENS }: LossFlags,
  onNote: (note: string) => void,
): Promise<Contexts> {
  if (text === undefined) return contextsOfSource(source, ranges, lossTokens);
  const tokenizer = await loadTokenizerOf(model, asked);
  const context = source.sequence ?? (await contextOf(model)).byDefault;
  const ids = await tokenize({ text, tokens: lossTokens, onNote }, tokenizer, context);
  const left = { excludeTokens, excludePositions, startToken: tokenizer.startToken };
  return contextsOfIds(ids, context, left, text);
}

function first(saes: readonly Sae[], what: "model" | "tensor"): string | undefined {
  return saes.map(({ description }) => description.saetta?.[what]).find((it) => it !== undefined);
}

function unknown(what: string, flag: string): UsageError {
  return new UsageError(`neither the activations nor the autoencoder say which ${what} they are of`, {
    mend: `name it with ${flag}`,
  });
}

/** A tensor that was asked for by name is taken at its word. */
function checkTensors(saes: readonly Sae[], tensor: string, asked: boolean): void {
  for (const { path, description } of saes) {
    const own = description.saetta?.tensor;
    if (asked || own === undefined || own === tensor) continue;
    throw new UsageError(`was trained on the tensor '${own}', but the activations are of '${tensor}'`, {
      where: path ?? "the autoencoder",
      mend: "compare autoencoders of one tensor, or name the tensor with --tensor",
    });
  }
}

function checkModel(
  model: LanguageModel,
  { origin, paths }: Source,
  asked: boolean,
  onNote: (note: string) => void,
): void {
  if (origin.modelSha256 === undefined || origin.modelSha256 === model.sha256) return;
  const what = `is not the model that ${paths.join(", ")} was made with (its SHA-256 is another)`;
  if (!asked)
    throw new SaettaError(what, {
      where: model.path,
      mend: "put that model back, or name this one with --model to use it all the same",
    });
  onNote(`${model.path} ${what}`);
}
