/** The rows that `saetta eval` looks at. */

import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { type TrainOptions, withDefaults } from "../config.ts";
import { chooseRows } from "../data/choose.ts";
import { type Range, without } from "../data/holdout.ts";
import { openSource } from "../data/open.ts";
import type { Source } from "../data/source.ts";
import { readRunConfig } from "../train/run-folder.ts";
import { SaettaError, UsageError } from "../util/errors.ts";

export interface EvalData {
  readonly source: Source;
  readonly ranges: readonly Range[];
  readonly nonFinite: "stop" | "skip";
}

/**
 * Without `paths` the hold-out of the run that the checkpoint `saePath` belongs to; with them all their rows. Excluded tokens are left out of
 * both, as the run left them out. The caller closes the source.
 */
export async function evalData(saePath: string, paths: readonly string[], asked: TrainOptions): Promise<EvalData> {
  const run = await runOf(saePath);
  const config = run === undefined ? undefined : await readRunConfig(run);
  const options = withDefaults({ ...config?.options, ...asked });
  if (paths.length === 0 && config === undefined) {
    throw new UsageError("the autoencoder belongs to no run, so there is no hold-out", {
      where: saePath,
      mend: "name the activations: saetta eval SAE acts.h5",
    });
  }
  const source = await openSource(
    paths.length > 0 ? paths : (config?.data ?? []),
    options.dataset === undefined ? {} : { dataset: options.dataset },
  );
  try {
    const { untrained, holdout } = await chooseRows(source, paths.length > 0 ? { ...options, holdout: 0 } : options);
    const ranges = paths.length > 0 ? without([{ first: 0, count: source.rows }], untrained) : holdout;
    if (ranges.length > 0) return { source, ranges, nonFinite: options.nonFinite };
    throw new SaettaError(paths.length > 0 ? "every row is excluded" : "the run held no rows out", {
      where: paths.length > 0 ? paths.join(", ") : run,
      mend: paths.length > 0 ? "pass --exclude-tokens none" : "name other activations: saetta eval RUN acts.h5",
    });
  } catch (thrown) {
    await source.close();
    throw thrown;
  }
}

/** The run folder around a checkpoint folder. */
async function runOf(saePath: string): Promise<string | undefined> {
  const run = dirname(dirname(saePath));
  if (basename(dirname(saePath)) !== "checkpoints") return undefined;
  return (await stat(join(run, "config.json")).catch(() => undefined))?.isFile() ? run : undefined;
}
