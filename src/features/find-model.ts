/** The language model that activations are of, when it is at hand. */

import { stat } from "node:fs/promises";
import type { Source } from "../data/source.ts";
import { type LanguageModel, loadModel } from "../language-model/load.ts";
import { loadTokenizer, type Tokenizer } from "../language-model/tokenizer.ts";
import { messageOf, SaettaError } from "../util/errors.ts";

/**
 * The model at `path`; without it the one that the source names, if it is still there and the same: else undefined, and `onNote` is told why. Throws SaettaError when the one at
 * `path` cannot be used.
 */
export async function findModel(
  source: Source,
  path: string | undefined,
  onNote: (note: string) => void,
): Promise<LanguageModel | undefined> {
  const { model: named, modelSha256 } = source.origin;
  const without = "which tokens latents promote is left out; --model names the model";
  if (path === undefined) {
    if (named === undefined) return undefined;
    if ((await stat(named).catch(() => undefined)) === undefined) {
      onNote(`the model ${named} is not here: ${without}`);
      return undefined;
    }
  }
  const model = await loadModel(path ?? named!);
  if (modelSha256 === undefined || modelSha256 === model.sha256) return model;
  if (path !== undefined) {
    throw new SaettaError("is not the model that the activations are of: its SHA-256 is another", {
      where: path,
      mend: "name that one, or leave out --model",
    });
  }
  onNote(`the model ${named} has changed since the activations were harvested: ${without}`);
  return undefined;
}

/** The tokenizer that the source, the autoencoder or the model names; undefined, and `onNote` is told, where tokens are there and no tokenizer is. */
export async function findTokenizer(
  source: Source,
  named: string | undefined,
  onNote: (note: string) => void,
): Promise<Tokenizer | undefined> {
  if (source.tokens === undefined) {
    onNote(`${source.paths.join(", ")} has no tokens: latents are shown without text`);
    return undefined;
  }
  const path = source.origin.tokenizer ?? named;
  if (path === undefined) {
    onNote("it is not known which tokenizer the tokens are of (attribute tokenizer): they are shown as numbers");
    return undefined;
  }
  return loadTokenizer(path).catch((thrown: unknown) => {
    onNote(`the tokenizer cannot be read (${messageOf(thrown)}): tokens are shown as numbers`);
    return undefined;
  });
}
