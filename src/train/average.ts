/** The running average of the weights on the hold-out, at the end of training. */

import { COUNTERS, type Engine, type Params, type State } from "../engine/engine.ts";
import { type Average, corrected } from "../inference/weights.ts";
import { paramEntries } from "../sae/params.ts";
import { float64Of } from "../util/bytes.ts";
import type { HeldOut } from "./report.ts";
import { readReals, writeReals } from "./state.ts";

/**
 * What `run` finds of the average, corrected as eval and export take it (`corrected`); `d`: width
 * of the outputs. The average is put where the first moments are, which are put back after that
 * bit by bit: no memory of the engine is taken. undefined where no average is kept, or it has seen
 * no step.
 */
export async function evaluateAverage(
  engine: Engine,
  { params, ema, m, counters }: State,
  { decay, unitDecoder, d }: Omit<Average, "updates"> & { readonly d: number },
  run: (params: Params) => Promise<HeldOut>,
): Promise<Pick<HeldOut, "holdout_fvu_ema" | "holdout_mse_ema"> | undefined> {
  const updates = float64Of(await engine.read(counters))[COUNTERS.indexOf("ema")]!;
  if (ema === undefined || updates === 0) return undefined;
  const places = paramEntries(m);
  const of = { decay, updates, unitDecoder };
  const before = await Promise.all(places.map(([, , place]) => engine.read(place)));
  try {
    for (const [name, , place] of places) {
      const average = ema[name];
      if (average === undefined) continue;
      writeReals(engine, place, corrected(name, await readReals(engine, average), d, of));
    }
    const { holdout_fvu, holdout_mse } = await run({ ...params, ...m });
    return holdout_fvu === undefined || holdout_mse === undefined
      ? undefined
      : { holdout_fvu_ema: holdout_fvu, holdout_mse_ema: holdout_mse };
  } finally {
    for (const [i, [, , place]] of places.entries()) engine.write(place, before[i]!);
  }
}
