/** The running average of the weights on the hold-out, at the end of training. */

import { COUNTERS, type Engine, PARAM_NAMES, type Params, type State } from "../engine/engine.ts";
import { corrected } from "../inference/weights.ts";
import { float64Of } from "../util/bytes.ts";
import type { HeldOut } from "./loop.ts";
import { readReals, writeReals } from "./state.ts";

/**
 * What `run` finds of the average, bias-corrected and with decoder rows [n, d] of norm 1, as eval and export take it. The average is put where the first moments are, which
 * are put back after that bit by bit: no memory of the engine is taken. undefined where no average is kept, or it has seen no step.
 */
export async function evaluateAverage(
  engine: Engine,
  { ema, m, counters }: State,
  decay: number,
  d: number,
  run: (params: Params) => Promise<HeldOut>,
): Promise<Pick<HeldOut, "holdout_fvu_ema" | "holdout_mse_ema"> | undefined> {
  const updates = float64Of(await engine.read(counters))[COUNTERS.indexOf("ema")]!;
  if (ema === undefined || updates === 0) return undefined;
  const before = await Promise.all(PARAM_NAMES.map((name) => engine.read(m[name])));
  try {
    for (const name of PARAM_NAMES)
      writeReals(engine, m[name], corrected(name, await readReals(engine, ema[name]), d, { decay, updates }));
    const { holdout_fvu, holdout_mse } = await run(m);
    return holdout_fvu === undefined || holdout_mse === undefined
      ? undefined
      : { holdout_fvu_ema: holdout_fvu, holdout_mse_ema: holdout_mse };
  } finally {
    for (const [i, name] of PARAM_NAMES.entries()) engine.write(m[name], before[i]!);
  }
}
