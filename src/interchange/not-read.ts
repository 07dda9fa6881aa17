/**
 * Autoencoders of others that are recognised and not read, so that the error says what the file is.
 */

import { join } from "node:path";
import { firstBytes, formatOf, openToRead } from "../formats/open-file.ts";
import { openSafetensors } from "../formats/safetensors.ts";
import { readZip } from "../formats/torch-zip.ts";
import { FormatError, SaettaError } from "../util/errors.ts";
import type { Place } from "./format.ts";

/** A file of autoencoders that are not read, and what tells it from others. */
interface Unread {
  readonly title: string;
  /** The file that holds the weights. */
  readonly weights: string;
  /** Names that the folder has too. */
  readonly next?: string;
  /** Names of arrays that the file must have. */
  readonly arrays: readonly string[];
}

export const HYPERPARAMETERS = "hyperparams.json";
export const GEMMA_SCOPE_WEIGHTS = "params.npz";

const UNREAD: readonly Unread[] = [
  {
    title: "Llama Scope",
    weights: "checkpoints/final.safetensors",
    next: HYPERPARAMETERS,
    arrays: ["encoder.weight", "decoder.weight"],
  },
  { title: "Llama Scope", weights: "final.safetensors", arrays: ["encoder.weight", "decoder.weight"] },
  { title: "Llamascopium", weights: "sae_weights.safetensors", next: "config.json", arrays: ["W_E", "W_D"] },
  { title: "Gemma Scope 2", weights: "params.safetensors", next: "config.json", arrays: ["w_enc", "w_dec"] },
  { title: "Gemma Scope", weights: GEMMA_SCOPE_WEIGHTS, arrays: ["W_enc.npy", "W_dec.npy", "threshold.npy"] },
];

/**
 * What an autoencoder of a kind that Saetta knows and does not read is called; undefined where the
 * place is none.
 */
export async function unreadTitle({ folder, names, file }: Place): Promise<string | undefined> {
  for (const { title, weights, next, arrays } of UNREAD) {
    if (next !== undefined && !names.has(next)) continue;
    if (file === undefined ? !names.has(weights.split("/")[0]!) : file !== weights && file !== next) continue;
    const found = await arraysOf(join(folder, weights));
    if (arrays.every((name) => found.has(name))) return title;
  }
  return undefined;
}

/** Throws FormatError where the place is such an autoencoder. */
export async function refuseUnread(place: Place): Promise<void> {
  const title = await unreadTitle(place);
  if (title === undefined) return;
  throw new FormatError(`an autoencoder of ${title}, which is not read yet`, {
    where: place.file === undefined ? place.folder : join(place.folder, place.file),
    mend: "name an autoencoder of SAELens, sparsify, OpenAI, dictionary_learning or Qwen-Scope",
  });
}

/**
 * Names of the arrays in a safetensors or npz file; none where it is missing or damaged, which its
 * own reader says better.
 */
async function arraysOf(path: string): Promise<ReadonlySet<string>> {
  try {
    if (formatOf(await firstBytes(path)) === "zip") return await zipped(path);
    const file = await openSafetensors(path);
    await file.close();
    return new Set(file.tensors.keys());
  } catch (thrown) {
    if (thrown instanceof SaettaError) return new Set();
    throw thrown;
  }
}

async function zipped(path: string): Promise<ReadonlySet<string>> {
  const { handle, size } = await openToRead(path);
  try {
    return new Set((await readZip(handle, size, path)).keys());
  } finally {
    await handle.close();
  }
}
