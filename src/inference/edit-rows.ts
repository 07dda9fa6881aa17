/**
 * Steering and ablation: activations in which a latent has another value. What the autoencoder does
 * not reconstruct stays in the row, so that an edit that changes nothing leaves every bit.
 */

import { SaettaError, UsageError } from "../util/errors.ts";
import type { Sae, SparseCodes } from "./sae.ts";

/** set: the latent has this value; add: its direction times the value; remove: set to 0. */
export const EDIT_KINDS = ["set", "add", "remove"] as const;

export interface LatentEdit {
  readonly latent: number;
  readonly kind: (typeof EDIT_KINDS)[number];
  /** In units of activations. "remove" ignores it. */
  readonly value: number;
}

/** An edit of the rows that `isIn` is true of. */
export interface RowEdit extends LatentEdit {
  readonly isIn: (row: number) => boolean;
}

/** What an edit does, for people. */
export const EDIT_DEFINITION =
  "x + (value - activation) * decoder row, times the size of the row where rows are normalised one by one: only the edited latent's part of the reconstruction changes, the rest of the activation stays";

/**
 * Throws SaettaError for a transcoder: it writes to another tensor than it reads. Throws UsageError
 * for a latent that is not there.
 */
export function checkEditable({ path = "the autoencoder", description, dims }: Sae, latents: readonly number[]): void {
  if (description.dims.untied === true)
    throw new SaettaError("is a transcoder: what it writes does not belong in the tensor that it reads", {
      where: path,
      mend: "name an autoencoder",
    });
  const unknown = latents.find((latent) => latent >= dims.n);
  if (unknown === undefined) return;
  throw new UsageError(`there is no latent ${unknown}; they are numbered from 0 to ${dims.n - 1}`, { where: path });
}

/** Decoder rows [width] by latent. */
export type Directions = ReadonlyMap<number, Float32Array>;

export async function directionsOf(sae: Sae, latents: readonly number[]): Promise<Directions> {
  const { dOut } = sae.dims;
  const decoder = latents.length === 0 ? new Float32Array(0) : await sae.parameter("decoder");
  return new Map(latents.map((latent) => [latent, decoder.slice(latent * dOut, (latent + 1) * dOut)]));
}

/** The value of a latent in a row of codes; 0 where it is not active. */
export function activationIn({ k, latent, value }: SparseCodes, row: number, wanted: number): number {
  for (let slot = row * k; slot < (row + 1) * k; slot++) if (latent[slot] === wanted) return value[slot]!;
  return 0;
}

/**
 * rows [B, width] with the edits, as a copy. `codes`: those of the rows; `directions`: of all
 * latents that are edited. A row in which no latent changes keeps its bits.
 */
export function edited(
  rows: Float32Array,
  codes: SparseCodes,
  edits: readonly RowEdit[],
  directions: Directions,
): Float32Array {
  const result = rows.slice();
  const count = codes.latent.length / codes.k;
  const width = rows.length / count;
  for (let row = 0; row < count; row++) {
    for (const [latent, change] of changesOf(codes, row, edits)) {
      if (change === 0) continue;
      const direction = directions.get(latent)!;
      const step = change * (codes.rows?.size[row] ?? 1);
      for (let i = 0; i < width; i++) result[row * width + i]! += step * direction[i]!;
    }
  }
  return result;
}

/** By how much each latent changes in a row; edits of one latent apply one after the other. */
function changesOf(codes: SparseCodes, row: number, edits: readonly RowEdit[]): Map<number, number> {
  const changes = new Map<number, number>();
  for (const { latent, kind, value, isIn } of edits) {
    if (!isIn(row)) continue;
    const before = changes.get(latent) ?? 0;
    const target = kind === "remove" ? 0 : value;
    changes.set(latent, kind === "add" ? before + value : target - activationIn(codes, row, latent));
  }
  return changes;
}
