/** What a run will need of memory, before it takes it. */

import { readFileSync } from "node:fs";
import { freemem } from "node:os";
import type { Dims, Real, SelectionPlan } from "../engine/engine.ts";
import { slotsOf } from "../engine/selections.ts";
import { type ParamName, parameterCount } from "../sae/params.ts";
import { BYTES, formatBytes } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";

export interface Needs {
  readonly dims: Dims;
  readonly params: readonly ParamName[];
  /** Of a training step: one per path. */
  readonly selections: readonly SelectionPlan[];
  readonly real: Real;
  readonly ema: boolean;
  /** Whether whole gradients are kept, for replicas to sum. */
  readonly dense?: boolean;
  readonly batch: number;
  /** Bytes of raw rows: the ring, a window that is being read, and one on its way into the ring. */
  readonly rowBytes: number;
  /** Numbers sampled before the start, as f32. */
  readonly sampled: number;
}

/**
 * What the program itself takes: Node, its libraries, the engine's code and garbage that is not
 * collected yet. Measured with `bench/memory.mjs`.
 */
const PROGRAM = 144 * 2 ** 20;
/** Bytes of an entry of the inverted lists. */
const ENTRY = 12;

/**
 * The most bytes held at once: of parameters with their moments and average, of a batch with its
 * codes, and of raw rows or of what the start needs.
 */
export function bytesNeeded({ dims, params, selections, real, ema, dense = false, batch, rowBytes, sampled }: Needs): {
  readonly weights: number;
  readonly batch: number;
  readonly rows: number;
  readonly total: number;
} {
  const { dIn, dOut, n, untied = false } = dims;
  const parameters = parameterCount(dims, params);
  const weights = parameters * BYTES[real] * ((ema ? 4 : 3) + (dense ? 1 : 0));
  // x, the target of a transcoder, and an error per branch; latent, value and gradient of each
  // code, and the inverted lists with the count and place of each latent.
  const slots = slotsOf(selections);
  const numbers = dIn + (untied ? dOut : 0) + selections.length * dOut;
  const ofBatch = batch * (numbers * BYTES[real] + slots * (4 + 2 * BYTES[real] + ENTRY)) + 40 * n;
  // The sample, which nobody may have collected when the first window comes. At the start also the
  // parameters as drawn and as kept while steps are timed; later raw rows, and the largest tensor
  // as a checkpoint reads it.
  const rows =
    sampled * BYTES.f32 + Math.max(2 * parameters * BYTES[real], rowBytes + n * Math.max(dIn, dOut) * BYTES[real]);
  return { weights, batch: ofBatch, rows, total: PROGRAM + weights + ofBatch + rows };
}

/**
 * Bytes that the system can still give. In a container libuv counts the cache of files as taken,
 * though the kernel gives it back when it is needed.
 */
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

/**
 * Returns the bytes needed; throws SaettaError with the numbers when the run cannot fit into what
 * is available.
 */
export function checkMemory(needs: Needs, available: number): number {
  const { weights, batch, rows, total } = bytesNeeded(needs);
  if (total <= available) return total;
  const { n, dIn: d } = needs.dims;
  throw new SaettaError(
    `the run needs ${formatBytes(total)} of memory and ${formatBytes(available)} are free: ${formatBytes(weights)} for ${n} latents x ${d} inputs with their moments, ` +
      `${formatBytes(batch)} for a batch of ${needs.batch} rows, ${formatBytes(rows)} for rows read ahead and work`,
    { mend: weights > batch ? "lower --latents" : "lower --batch" },
  );
}
