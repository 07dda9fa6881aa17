/** What the formats' `read` have in common. */

import type { Source } from "../../../src/data/source.ts";
import { SaettaError } from "../../../src/util/errors.ts";

/** What one read may ask for; more would be the test's own doing. */
export const MOST_BYTES = 1 << 20;

/**
 * Runs all of them, so that a refusal of one does not hide another; then throws the first refusal.
 * What is no SaettaError goes through at once.
 */
export async function all(...parts: readonly (() => unknown)[]): Promise<void> {
  let refusal: SaettaError | undefined;
  for (const part of parts) {
    try {
      await part();
    } catch (thrown) {
      if (!(thrown instanceof SaettaError)) throw thrown;
      refusal ??= thrown;
    }
  }
  if (refusal !== undefined) throw refusal;
}

const BYTES = { f16: 2, bf16: 2, f32: 4, f64: 8 } as const;

/** The first and the last rows of a source and their tokens, as training reads them. */
export async function readSource(source: Source): Promise<void> {
  try {
    const rowBytes = source.dIn * BYTES[source.dtype];
    const rows = source.rows ?? 0;
    const count = Math.min(rows, 64, Math.floor(MOST_BYTES / rowBytes));
    const read = (first: number) => source.read(first, count, new Uint8Array(count * rowBytes));
    const tokens = (first: number) => source.tokens?.(first, count);
    await all(
      () => count > 0 && read(0),
      () => count > 0 && read(rows - count),
      () => tokens(0),
      () => tokens(rows - count),
      () => source.mask?.(0, count),
      () => source.mask?.(rows - count, count),
    );
    source.locate(0);
  } finally {
    await source.close();
  }
}
