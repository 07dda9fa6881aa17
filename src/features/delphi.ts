/**
 * Codes as the cache of EleutherAI's delphi (`delphi/latents/cache.py`): per range of latents one
 * safetensors file with `locations` [codes, 3] (sequence, position, latent less the first of the
 * range), `activations` float16 [codes] and `tokens` int64 [sequences, positions].
 */

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { NonFinite } from "../data/batches.ts";
import { rowsOf } from "../data/chunks.ts";
import type { Range } from "../data/holdout.ts";
import type { Source } from "../data/source.ts";
import { writeSafetensors } from "../formats/safetensors.ts";
import type { Sae } from "../inference/sae.ts";
import { atomicWrite } from "../util/atomic-write.ts";
import { bytesOf } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { encodeFloat16 } from "../util/float16.ts";
import { TokenBlocks } from "./row-text.ts";

/** Codes that are held until they are split by latent: 24 bytes each. */
const MOST_CODES = 2 ** 24;
const SPLITS = 5;
/** delphi leaves out what is not above it. */
const LEAST = 1e-5;

export interface DelphiOptions {
  readonly out: string;
  /** The name of the tensor or hook, that of the folder. */
  readonly module: string;
  readonly model: string;
  readonly nonFinite: NonFinite;
}

/**
 * Writes out/latents/MODULE/; gives back its path. Throws SaettaError where rows have no sequences
 * or no tokens, or there are too many codes.
 */
export async function writeDelphi(
  sae: Sae,
  source: Source,
  ranges: readonly Range[],
  options: DelphiOptions,
): Promise<string> {
  const { out, module, model, nonFinite } = options;
  const { sequence, tokens } = source;
  if (sequence === undefined || tokens === undefined) {
    throw new SaettaError("delphi's cache needs sequences of tokens", {
      where: source.paths.join(", "),
      mend: "give activations [sequences, tokens, width] with tokens",
    });
  }
  const { n } = sae.dims;
  const held: { row: number[]; latent: number[]; value: number[] } = { row: [], latent: [], value: [] };
  for await (const { raw, rows, numbers, refuse } of rowsOf(source, ranges, sae.chunks(nonFinite))) {
    const { k, latent, value } = await sae.encodeRaw(raw, source.dtype, rows, refuse);
    for (let slot = 0; slot < value.length; slot++) {
      if (!(value[slot] > LEAST)) continue;
      held.row.push(numbers[Math.floor(slot / k)]);
      held.latent.push(latent[slot]);
      held.value.push(value[slot]);
    }
    if (held.value.length > MOST_CODES)
      throw new SaettaError(`more than ${MOST_CODES} codes`, { where: out, mend: "take fewer rows with --max-rows" });
  }
  const folder = join(out, "latents", module);
  await mkdir(folder, { recursive: true });
  const sequences = Math.floor(source.rows / sequence);
  const ids = BigInt64Array.from(await new TokenBlocks(source).read(0, sequences * sequence), BigInt);
  const edges = Array.from({ length: SPLITS + 1 }, (_, i) => Math.floor((i * n) / SPLITS));
  for (let split = 0; split < SPLITS; split++) {
    const [first, end] = [edges[split], edges[split + 1]];
    if (first === end) continue;
    const codes: number[] = [];
    for (const [i, latent] of held.latent.entries()) if (latent >= first && latent < end) codes.push(i);
    const small = sequences <= 2 ** 16 && end - first <= 2 ** 16 && sequence <= 2 ** 16;
    const locations = new (small ? Uint16Array : Uint32Array)(3 * codes.length);
    for (const [at, i] of codes.entries()) {
      const row = held.row[i];
      locations.set([Math.floor(row / sequence), row % sequence, held.latent[i] - first], 3 * at);
    }
    const values = new Uint16Array(codes.length);
    encodeFloat16(
      Float32Array.from(codes, (i) => held.value[i]),
      values,
    );
    const part = (name: string, dtype: "U16" | "U32" | "F16" | "I64", shape: number[], bytes: Uint8Array) => ({
      name,
      dtype,
      shape,
      bytes: () => Promise.resolve(bytes),
    });
    await atomicWrite(join(folder, `${first}_${end - 1}.safetensors`), (write) =>
      writeSafetensors(write, [
        part("locations", small ? "U16" : "U32", [codes.length, 3], bytesOf(locations)),
        part("activations", "F16", [codes.length], bytesOf(values)),
        part("tokens", "I64", [sequences, sequence], new Uint8Array(ids.buffer)),
      ]),
    );
  }
  const config = {
    dataset_repo: source.description,
    dataset_split: "train",
    dataset_name: "",
    dataset_column: "text",
    batch_size: 1,
    ctx_len: sequence,
    n_tokens: sequences * sequence,
    n_splits: SPLITS,
    model_name: model,
  };
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  return folder;
}
