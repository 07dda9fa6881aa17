/** What a run will need of memory, before it takes it. */

import { readFileSync } from "node:fs";
import { freemem } from "node:os";
import { BYTES, type Real, type Shape } from "../engine/engine.ts";
import { parameterCount } from "../sae/shape.ts";
import { formatBytes } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";

export interface Needs {
  readonly shape: Shape;
  readonly real: Real;
  readonly ema: boolean;
  readonly batch: number;
  /** Bytes of raw rows held at once: the ring, and a window on its way. */
  readonly rowBytes: number;
}

/** Bytes of parameters with their moments and average, of a batch with its codes, and of raw rows. */
export function bytesNeeded({ shape, real, ema, batch, rowBytes }: Needs): { weights: number; batch: number; rows: number; total: number } {
  const weights = parameterCount(shape) * BYTES[real] * (ema ? 4 : 3);
  // x and an error a path; latent, value and gradient of each code, once more in the inverted lists.
  const paths = shape.auxk > 0 ? 2 : 1;
  const codes = 2 * (shape.k + shape.auxk) * (4 + 2 * BYTES[real]);
  const ofBatch = batch * ((1 + paths) * shape.d * BYTES[real] + codes);
  // The start is drawn in f32 before there is any batch.
  const start = Math.max(0, parameterCount(shape) * BYTES.f32 - ofBatch - rowBytes);
  return { weights: weights + start, batch: ofBatch, rows: rowBytes, total: weights + start + ofBatch + rowBytes };
}

/** Bytes that the system can still give. In a container libuv counts the cache of files as taken, though the kernel gives it back when it is needed. */
export function availableMemory(): number {
  let cache = 0;
  try {
    for (const [, bytes] of readFileSync("/sys/fs/cgroup/memory.stat", "utf8").matchAll(/^(?:in)?active_file (\d+)$/gm))
      cache += Number(bytes);
  } catch {
    // no such container
  }
  return Math.min(freemem(), process.availableMemory() + cache);
}

/** Throws SaettaError with the numbers when the run cannot fit into what is available. */
export function checkMemory(needs: Needs, available: number): void {
  const { weights, batch, rows, total } = bytesNeeded(needs);
  if (total <= available) return;
  const { n, d } = needs.shape;
  throw new SaettaError(
    `the run needs ${formatBytes(total)} of memory and ${formatBytes(available)} are free: ${formatBytes(weights)} for ${n} latents x ${d} inputs with their moments, ` +
      `${formatBytes(batch)} for a batch of ${needs.batch} rows, ${formatBytes(rows)} for rows read ahead`,
    { mend: weights > batch ? "lower --latents" : "lower --batch" },
  );
}
