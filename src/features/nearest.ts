/** Which latents' decoder rows point the same way. */

import { allocParams } from "../engine/allocate.ts";
import type { Engine } from "../engine/engine.ts";
import { type Sae, saeOver } from "../inference/sae.ts";
import { unitRows } from "../inference/weights.ts";
import { paramsOf } from "../sae/architectures/index.ts";
import { autoencoderDims } from "../sae/dims.ts";
import { bytesOf } from "../util/bytes.ts";

/**
 * Each latent's nearest others, the nearest first, [n, count]: `latent`, and the cosine of the two
 * decoder rows, above 0; a place that is not used has cosine 0.
 */
export interface Nearest {
  readonly count: number;
  readonly latent: Uint32Array;
  readonly cosine: Float32Array;
}

/** Rows that are compared with all others at once. */
const BLOCK = 2048;

/**
 * The rows of `keys` [n,d] that are nearest to each row of `queries` [m,d], by cosine; both of norm
 * 1. That is what an encoder does whose weights are the keys, without biases, for the queries as
 * its inputs. So the engine's product and selection do the work, a block of queries at a time: 2 m
 * n d operations, no more memory than an autoencoder.
 */
export async function nearestRows(
  engine: Engine,
  queries: Float32Array,
  keys: Float32Array,
  { d, count }: { readonly d: number; readonly count: number },
  onProgress?: (done: number) => void,
): Promise<Nearest> {
  const [m, n] = [queries.length / d, keys.length / d];
  const k = Math.min(count, n);
  const found: Nearest = { count, latent: new Uint32Array(m * count), cosine: new Float32Array(m * count) };
  await using comparer = await comparerOf(engine, keys, { d, n, k });
  for (let first = 0; first < m; first += BLOCK) {
    const block = queries.subarray(first * d, Math.min(m, first + BLOCK) * d);
    const { latent, value } = await comparer.encode(block);
    for (let row = 0; row < block.length / d; row++) {
      for (let slot = 0; slot < k && value[row * k + slot] > 0; slot++) {
        found.latent[(first + row) * count + slot] = latent[row * k + slot];
        found.cosine[(first + row) * count + slot] = Math.min(1, value[row * k + slot]);
      }
    }
    onProgress?.(Math.min(m, first + BLOCK));
  }
  return found;
}

/** A copy of the decoder's rows, each of norm 1. */
export async function decoderDirections(sae: Sae): Promise<Float32Array> {
  const rows = (await sae.parameter("decoder")).slice();
  unitRows(rows, sae.dims.dOut);
  return rows;
}

/** Compares all decoder rows with each other: a row's nearest others, without the row itself. */
export async function nearestLatents(sae: Sae, count: number, onProgress?: (done: number) => void): Promise<Nearest> {
  const { dOut: d, n } = sae.dims;
  const rows = await decoderDirections(sae);
  const all = await nearestRows(sae.engine, rows, rows, { d, count: count + 1 }, onProgress);
  const found: Nearest = { count, latent: new Uint32Array(n * count), cosine: new Float32Array(n * count) };
  for (let row = 0; row < n; row++) {
    let used = 0;
    for (let slot = row * (count + 1); slot < (row + 1) * (count + 1) && used < count; slot++) {
      if (!(all.cosine[slot] > 0) || all.latent[slot] === row) continue;
      found.latent[row * count + used] = all.latent[slot];
      found.cosine[row * count + used++] = all.cosine[slot];
    }
  }
  return found;
}

/** An autoencoder whose encoder's rows are `rows` [n,d]. */
async function comparerOf(
  engine: Engine,
  rows: Float32Array,
  { d, n, k }: { readonly d: number; readonly n: number; readonly k: number },
): Promise<Sae> {
  const dims = autoencoderDims(d, n);
  const spec = { architecture: "topk", k, auxk: 0 } as const;
  const params = allocParams(engine, dims, paramsOf(spec));
  engine.write(params.encoder, bytesOf(engine.real === "f32" ? rows : Float64Array.from(rows)));
  const found = {
    path: undefined,
    description: { dims, spec, saetta: undefined },
    weights: "raw",
    step: undefined,
    refusals: [],
  } as const;
  return saeOver(found, engine, params, async () => undefined);
}
