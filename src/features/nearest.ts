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
 * Compares all decoder rows with each other, a block of rows at a time. That is what an encoder
 * does: the rows, brought to norm 1, are both its inputs and its weights, without biases, and its
 * top count + 1 latents are the row itself and the nearest others. So the engine's product and
 * selection do the work: 2 n^2 d operations, no more memory than the autoencoder.
 */
export async function nearestLatents(sae: Sae, count: number, onProgress?: (done: number) => void): Promise<Nearest> {
  const { dIn: d, n } = sae.dims;
  const k = Math.min(count + 1, n);
  const rows = (await sae.parameter("decoder")).slice();
  unitRows(rows, d);
  const found: Nearest = { count, latent: new Uint32Array(n * count), cosine: new Float32Array(n * count) };
  await using comparer = await comparerOf(sae.engine, rows, { d, n, k });
  for (let first = 0; first < n; first += BLOCK) {
    const block = rows.subarray(first * d, Math.min(n, first + BLOCK) * d);
    const { latent, value } = await comparer.encode(block);
    for (let row = 0; row < block.length / d; row++) {
      let used = 0;
      for (let slot = row * k; slot < (row + 1) * k && used < count; slot++) {
        if (!(value[slot] > 0) || latent[slot] === first + row) continue;
        found.latent[(first + row) * count + used] = latent[slot];
        found.cosine[(first + row) * count + used] = Math.min(1, value[slot]);
        used++;
      }
    }
    onProgress?.(Math.min(n, first + BLOCK));
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
