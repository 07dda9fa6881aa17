/** The language model and the tokenizer that activations are of, where they can be found. */

import type { Source } from "../data/source.ts";
import { type LanguageModel, loadModel } from "../language-model/load.ts";
import { loadTokenizer, type Tokenizer } from "../language-model/tokenizer.ts";
import { messageOf, SaettaError } from "../util/errors.ts";
import { findMoved } from "../util/moved.ts";

type OnNote = (note: string) => void;

/**
 * Path of the model that the activations, or else the autoencoder (`trained`), name, also where it
 * was moved with them. undefined: none of them names one. Throws SaettaError when it is gone.
 */
export async function modelPath(
  { origin }: Source,
  trained: string | undefined,
  onNote: OnNote,
): Promise<string | undefined> {
  const named = origin.model ?? trained;
  if (named === undefined) return undefined;
  const places = origin.model === undefined ? [] : (origin.modelPlaces ?? []);
  const at = await findMoved("the model", [named, ...places], onNote);
  if (at !== undefined) return at;
  throw new SaettaError("the model that the activations were made with is not there any more", {
    where: named,
    mend: "name it with --model PATH",
  });
}

/**
 * The model at `path`; without it the one that the source names, if it is still there and the same.
 * Otherwise undefined, and `onNote` gets the reason. Throws SaettaError when the one at `path`
 * cannot be used.
 */
export async function findModel(
  source: Source,
  path: string | undefined,
  onNote: OnNote,
): Promise<LanguageModel | undefined> {
  const { model: named, modelSha256 } = source.origin;
  const without = "which tokens latents promote is left out; --model names the model";
  if (path === undefined && named === undefined) return undefined;
  const at = path ?? (await findMoved("the model", [named!, ...(source.origin.modelPlaces ?? [])], onNote));
  if (at === undefined) {
    onNote(`the model ${named} is not here: ${without}`);
    return undefined;
  }
  const model = await loadModel(at);
  if (modelSha256 === undefined || modelSha256 === model.sha256) return model;
  if (path !== undefined) {
    throw new SaettaError("is not the model that the activations are of: its SHA-256 is another", {
      where: path,
      mend: "name that one, or leave out --model",
    });
  }
  onNote(`the model ${at} has changed since the activations were harvested: ${without}`);
  return undefined;
}

/** Where a tokenizer may be, besides where the activations say. */
export interface TokenizerPaths {
  /** The one that was asked for, a tokenizer.json or its folder. */
  readonly asked?: string | undefined;
  /** Where the autoencoder and the model say that it is; the first one that is there is taken. */
  readonly others?: readonly (string | undefined)[];
}

/**
 * The tokenizer that was asked for, else the one that the activations name, also where it was moved
 * with them, else the first of the others that is there. undefined: nothing names one. Throws
 * SaettaError when it is gone or cannot be used.
 */
export async function tokenizerOf(
  { origin }: Source,
  { asked, others = [] }: TokenizerPaths,
  onNote: OnNote,
): Promise<Tokenizer | undefined> {
  if (asked !== undefined) return loadTokenizer(asked);
  const named = origin.tokenizer === undefined ? [] : [origin.tokenizer, ...(origin.tokenizerPlaces ?? [])];
  const places = [...named, ...others.filter((path) => path !== undefined)];
  if (places[0] === undefined) return undefined;
  const at = await findMoved("the tokenizer", places, onNote);
  if (at !== undefined) return loadTokenizer(at);
  throw new SaettaError("the tokenizer that the activations were made with is not there any more", {
    where: places[0],
    mend: "name it with --tokenizer PATH",
  });
}

/** As `tokenizerOf`, but a tokenizer that nobody asked for and that cannot be used is a note. */
export async function findTokenizer(
  source: Source,
  paths: TokenizerPaths,
  onNote: OnNote,
): Promise<Tokenizer | undefined> {
  if (source.tokens === undefined) {
    onNote(`${source.paths.join(", ")} has no tokens: latents are shown without text`);
    return undefined;
  }
  try {
    const tokenizer = await tokenizerOf(source, paths, onNote);
    if (tokenizer === undefined) {
      onNote(
        "it is not known which tokenizer the tokens are of (attribute tokenizer): they are shown as numbers; --tokenizer names it",
      );
    }
    return tokenizer;
  } catch (thrown) {
    if (paths.asked !== undefined) throw thrown;
    onNote(`the tokenizer cannot be read (${messageOf(thrown)}): tokens are shown as numbers`);
    return undefined;
  }
}
