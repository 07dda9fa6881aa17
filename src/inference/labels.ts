/** Where the labels of an autoencoder's latents are. */

import { join, resolve } from "node:path";
import { runFolderOf } from "../checkpoint/layout.ts";
import { type Labels, readLabels } from "../explorer/labels-file.ts";
import { LABELS } from "../run-files/names.ts";
import type { FoundSae, SaeOrigin } from "./weights.ts";

/**
 * The file: in the run folder of a checkpoint, in the folder of any other autoencoder; of a file
 * that may have others next to it, with its name. undefined for weights that were never saved.
 */
export function labelsPath(found: SaeOrigin & Partial<Pick<FoundSae, "foreign">>): string | undefined {
  if (found.path === undefined) return undefined;
  const { file } = found.foreign?.place ?? {};
  if (file !== undefined) return join(found.path, `${file}.${LABELS}`);
  return join(runFolderOf(resolve(found.path)) ?? found.path, LABELS);
}

/** The labels of an autoencoder; none where there is no file. Throws where it is no such file. */
export async function labelsOf(found: SaeOrigin): Promise<Labels> {
  return readLabels(labelsPath(found) ?? "");
}
