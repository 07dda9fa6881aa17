/** Whether rows are those that an autoencoder takes. */

import type { Source } from "../data/source.ts";
import { SaettaError } from "../util/errors.ts";
import type { Sae } from "./sae.ts";

/**
 * Throws SaettaError where rows or targets are not as wide as the autoencoder, or an autoencoder is
 * given targets.
 */
export function refuseWidth(sae: Sae, source: Source): void {
  const { dIn: d, dOut, untied = false } = sae.dims;
  if (source.dOut !== undefined && !untied) {
    throw new SaettaError("is an autoencoder, which has no targets", {
      where: sae.path ?? "",
      mend: "leave out --target",
    });
  }
  if (source.dOut !== undefined && source.dOut !== dOut) {
    throw new SaettaError(`targets have ${source.dOut} numbers, but the transcoder writes ${dOut}`, {
      where: source.targetPaths?.join(", ") ?? "",
    });
  }
  if (source.dIn !== d) {
    throw new SaettaError(
      `rows have ${source.dIn} numbers, but the autoencoder${sae.path === undefined ? "" : ` in ${sae.path}`} takes ${d}`,
      {
        where: source.paths.join(", "),
      },
    );
  }
}
