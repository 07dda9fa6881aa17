/** `saetta eval` from paths and flags to what is printed. */

import { join, resolve } from "node:path";
import type { TrainOptions } from "../config.ts";
import type { Source } from "../data/source.ts";
import type { Engine } from "../engine/engine.ts";
import { reportWithFeatures } from "../features/in-text.ts";
import { loadSae, type Sae } from "../inference/sae.ts";
import { namesSae, type WeightsKind } from "../inference/weights.ts";
import { otherOrigin } from "../sae/origin.ts";
import { isSweep, readSweep } from "../train/sweep/sweep-folder.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { createProgressLine, type ProgressLine } from "../util/progress.ts";
import { type EvalData, sharedData } from "./eval-data.ts";
import { type LossFlags, lossesOf } from "./eval-loss.ts";
import type { Judged } from "./eval-text.ts";
import { note } from "./note.ts";

export interface EvalFlags extends LossFlags {
  readonly features?: number;
  readonly weights?: WeightsKind;
  readonly maxRows?: number;
  readonly data?: readonly string[];
}

/** Judges the autoencoders among the paths, all on the same rows; everything is closed again. */
export async function judgeAll(
  first: string,
  more: readonly string[],
  asked: TrainOptions,
  flags: EvalFlags,
  engine: Engine,
): Promise<Judged[]> {
  const { features, tokenizer, weights, maxRows } = flags;
  const paths = await sortPaths(first, more);
  if (paths.saes.length > 1 && features !== undefined && features > 0) {
    throw new UsageError("--features shows latents of one autoencoder, not of several", {
      mend: "evaluate them one at a time",
    });
  }
  if (paths.saes.length > 1 && typeof flags.ablate === "object") {
    throw new UsageError("--ablate removes latents of one autoencoder, not of several", {
      mend: "evaluate them one at a time",
    });
  }
  const saes: (Sae & { readonly path: string })[] = [];
  let data: EvalData | undefined;
  try {
    for (const path of paths.saes)
      saes.push(await loadSae(path, weights === undefined ? { engine } : { engine, weights }));
    for (const { found } of saes)
      for (const { error } of found.refusals) note(`passed over a damaged checkpoint: ${error.message}`);
    data = await sharedData(
      saes.map(({ path }) => resolve(path)),
      paths.data,
      asked,
      {
        moved: flags.data,
        mend: "name the activations: saetta eval SAE acts.h5, or --data where the run's are now",
        onNote: note,
      },
    );
    const { source, ranges, nonFinite } = data;
    const judged: Judged[] = [];
    for (const sae of saes) {
      const progress = createProgressLine({ label: "eval", unit: "rows" });
      const onProgress = (done: number) => progress.update(done);
      const options = { features, tokenizer, maxRows, nonFinite, onNote: note, onProgress };
      judged.push({ ...(await reportWithFeatures(sae, source, ranges, options)), loss: null });
      progress.done();
      noteOddities(sae, source, judged.at(-1)!.metrics.fvu);
    }
    let progress: ProgressLine | undefined;
    const losses = await lossesOf(
      saes,
      data,
      { ...flags, threads: asked.threads },
      {
        onNote: note,
        onProgress: (done, total) => {
          progress ??= createProgressLine({ label: "loss", total, unit: "tokens" });
          progress.update(done);
        },
      },
    ).finally(() => progress?.done());
    return judged.map((report, i) => ({ ...report, loss: losses?.[i] ?? null }));
  } finally {
    await data?.source.close();
    for (const sae of saes) await sae.close();
  }
}

/** Which of the paths after the first name autoencoders, and which activations. */
async function sortPaths(
  first: string,
  rest: readonly string[],
): Promise<{ readonly saes: readonly string[]; readonly data: readonly string[] }> {
  const saes = await membersOf(first);
  const data: string[] = [];
  for (const path of rest) {
    if ((await namesSae(path)) || (await isSweep(path))) saes.push(...(await membersOf(path)));
    else data.push(path);
  }
  return { saes, data };
}

/** The path, or the members of its sweep. Those that have saved nothing are left out. */
async function membersOf(path: string): Promise<string[]> {
  if (!(await isSweep(path))) return [path];
  const { members } = await readSweep(path);
  const saved: string[] = [];
  for (const name of members) {
    const run = join(path, name);
    if (await namesSae(run)) saved.push(run);
    else note(`${run} has saved no checkpoint and is left out`);
  }
  if (saved.length === 0)
    throw new SaettaError("no autoencoder of the sweep has saved a checkpoint", { where: path, mend: "resume it" });
  return saved;
}

/** What makes a number of an autoencoder on these rows doubtful, a line each. */
export function noteOddities({ path, description }: Sae, { paths, origin }: Source, fvu: number | null): void {
  const sae = path ?? "the autoencoder";
  const other = otherOrigin(paths.join(", "), origin, sae, description.saetta);
  if (other !== undefined) note(other);
  if (fvu !== null && fvu > 1) {
    note(
      `${sae}: FVU ${fvu.toPrecision(4)} is above 1, worse than the mean row: are these rows of the tensor and scale that it was trained on?`,
    );
  }
}
