/**
 * Whether a checkpoint could be gone on from: every byte as it was saved, every tensor there, of
 * its shape, and finite.
 */

import { join } from "node:path";
import type { Real } from "../engine/engine.ts";
import { openSafetensors, type Safetensors } from "../formats/safetensors.ts";
import { AVERAGE, OPTIMIZER } from "../run-files/names.ts";
import { normalizationOf, paramNames } from "../sae/description.ts";
import { PARAMS } from "../sae/params.ts";
import { FormatError, messageOf } from "../util/errors.ts";
import { firstNonFinite } from "../util/float16.ts";
import { foldOf } from "./fold.ts";
import { TRAINED, weightsFile } from "./layout.ts";
import { type Checkpoint, openCheckpoint } from "./load.ts";

/** What was found of one checkpoint. */
export interface CheckpointVerdict {
  readonly path: string;
  /** Files and bytes that the manifest lists; 0 when it cannot be read. */
  readonly files: number;
  readonly bytes: number;
  /** What is wrong, in one line that names the file; undefined when nothing is. */
  readonly problem: string | undefined;
  /** undefined when it cannot be opened. */
  readonly checkpoint: Checkpoint | undefined;
}

export async function verifyCheckpoint(path: string): Promise<CheckpointVerdict> {
  let checkpoint: Checkpoint | undefined;
  let problem: string | undefined;
  try {
    checkpoint = await openCheckpoint(path);
    await checkTensors(checkpoint);
  } catch (thrown) {
    problem = messageOf(thrown);
  }
  const entries = [...(checkpoint?.files.values() ?? [])];
  return { path, files: entries.length, bytes: entries.reduce((sum, { size }) => sum + size, 0), problem, checkpoint };
}

async function checkTensors({ path, description, files, real }: Checkpoint): Promise<void> {
  const all = paramNames(description);
  const params = (prefix: string, names = all) =>
    names.map((name) => ({ name: prefix + PARAMS[name].file, shape: PARAMS[name].shape(description.dims) }));
  const folded = all.filter(foldOf(description).folds);
  const average = files.has(AVERAGE);
  const trained =
    normalizationOf(description).kind === "scale" ? [TRAINED, ...(average ? [`${TRAINED}ema.`] : [])] : [];
  await check(join(path, weightsFile(description)), params(""), real);
  if (average) await check(join(path, AVERAGE), params(""), real);
  await check(
    join(path, OPTIMIZER),
    [...params("m."), ...params("v."), ...trained.flatMap((prefix) => params(prefix, folded))],
    real,
  );
}

async function check(
  path: string,
  tensors: readonly { readonly name: string; readonly shape: readonly number[] }[],
  real: Real,
): Promise<void> {
  const file = await openSafetensors(path);
  try {
    for (const { name, shape } of tensors) await checkTensor(file, name, shape, real);
  } finally {
    await file.close();
  }
}

async function checkTensor(file: Safetensors, name: string, shape: readonly number[], real: Real): Promise<void> {
  const refuse = (what: string): never => {
    throw new FormatError(`tensor "${name}" ${what}`, { where: file.path });
  };
  const entry = file.tensors.get(name);
  if (entry === undefined) return refuse("is missing");
  if (entry.dtype.toLowerCase() !== real) refuse(`is ${entry.dtype}, but the checkpoint is in ${real}`);
  if (entry.shape.join() !== shape.join())
    refuse(`is [${entry.shape.join(", ")}], but cfg.json says [${shape.join(", ")}]`);
  const bad = firstNonFinite(
    await file.read(name),
    real,
    0,
    shape.reduce((a, b) => a * b, 1),
  );
  if (bad >= 0) refuse(`is not finite at element ${bad}`);
}
