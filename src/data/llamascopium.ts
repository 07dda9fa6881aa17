/**
 * The cache of activations of Llamascopium (https://github.com/OpenMOSS/Llamascopium): a folder a
 * hook with [shard-N-]chunk-N.safetensors, each with activation [n, T, d], tokens, mask (what it
 * trains on) and attention_mask (what is no padding), and perhaps a .meta.json with an object a
 * sequence.
 */

import { basename, dirname, join, resolve } from "node:path";
import { SaettaError } from "../util/errors.ts";
import { type Json, readJsonFile } from "../util/json.ts";
import type { Origin } from "./source.ts";

/** The name of its activations. */
export const CHUNK_DATASET = "activation";

/**
 * What the names around a chunk, and the file beside it, say of its origin; nothing for files of
 * other names.
 */
export async function chunkOrigin(path: string): Promise<Origin> {
  const name = /^((?:shard-\d+-)?chunk-\d+)\.(?:safetensors|pt)$/.exec(basename(path))?.[1];
  if (name === undefined) return {};
  const tensor = basename(dirname(resolve(path)));
  // It only adds a name: what is not there, or is damaged, is not missed.
  const meta = await readJsonFile(join(dirname(path), `${name}.meta.json`), 256 * 1024 * 1024).catch(
    (thrown: unknown) => {
      if (thrown instanceof SaettaError) return undefined;
      throw thrown;
    },
  );
  const model = modelOf(meta);
  return { tensor, ...(model === undefined ? {} : { model }) };
}

/** model_name, where all of the sequences have the same. */
function modelOf(meta: Json | undefined): string | undefined {
  const all = new Set((Array.isArray(meta) ? meta : [meta]).map(nameIn));
  const [only] = all;
  return all.size === 1 ? only : undefined;
}

function nameIn(value: Json | undefined): string | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const name = (value as { readonly [key: string]: Json }).model_name;
  return typeof name === "string" ? name : undefined;
}
