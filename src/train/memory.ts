/** What a run will need of memory, before it takes it. */

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
  const perRow = (1 + paths) * shape.d * BYTES[real] + codes;
  return { weights, batch: batch * perRow, rows: rowBytes, total: weights + batch * perRow + rowBytes };
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
