/** The autoencoder that training leaves in its engine's memory. */

import { divided, foldOf } from "../checkpoint/fold.ts";
import { freeParams } from "../engine/allocate.ts";
import { COUNTERS, type Dims, type Engine, type State } from "../engine/engine.ts";
import { readNumbers } from "../engine/numbers.ts";
import { hasUnitDecoder, type SaeDescription } from "../sae/description.ts";
import { paramEntries } from "../sae/params.ts";
import { bytesOf, float32Of, float64Of } from "../util/bytes.ts";
import { UsageError } from "../util/errors.ts";
import { type Sae, saeOver } from "./sae.ts";
import { corrected } from "./weights.ts";

/**
 * An autoencoder over the state's own weights, or their running average where one was kept and has
 * seen a step. Nothing is copied; all else of the state is given back. The autoencoder owns the
 * engine and closes it. `dims`: of the latents that are here, where they are those of one shard:
 * then it can only be closed.
 */
export async function trainedSae(
  engine: Engine,
  state: State,
  description: SaeDescription,
  where: { readonly path: string | undefined; readonly step: number },
  dims: Dims = description.dims,
): Promise<Sae> {
  if (dims.n !== description.dims.n) return partial(engine, state, description, where);
  const { params, m, v, ema, age, counters } = state;
  const updates = (await readNumbers(engine, counters))[COUNTERS.indexOf("ema")]!;
  const decay = description.saetta?.emaDecay;
  const unitDecoder = hasUnitDecoder(description);
  const average = ema !== undefined && decay !== undefined && updates > 0 ? { decay, updates, unitDecoder } : undefined;
  const weights = average === undefined ? params : ema!;
  for (const group of [m, v, params, ema]) if (group && group !== weights) freeParams(engine, group);
  engine.free(age);
  engine.free(counters);
  // As a checkpoint does when it saves, and a reader when it loads.
  const fold = foldOf(description);
  for (const [name, , tensor] of paramEntries(weights)) {
    if (!fold.folds(name) && average === undefined) continue;
    const bytes = await engine.read(tensor);
    const folded = fold.folds(name) ? divided(bytes, engine.real, fold.divisor(name)) : bytes;
    const values = engine.real === "f64" ? float64Of(folded) : float32Of(folded);
    engine.write(tensor, bytesOf(average === undefined ? values : corrected(name, values, dims.dOut, average)));
  }
  const found = { ...where, description, weights: average === undefined ? "raw" : "ema", refusals: [] } as const;
  return saeOver(found, engine, weights, () => engine.close());
}

/** One shard of an autoencoder, which is none by itself. */
async function partial(
  engine: Engine,
  { params }: State,
  description: SaeDescription,
  where: { readonly path: string | undefined; readonly step: number },
): Promise<Sae> {
  const sae = await saeOver({ ...where, description, weights: "raw", refusals: [] }, engine, params, () =>
    engine.close(),
  );
  const refuse = () =>
    Promise.reject(
      new UsageError("this rank holds a part of the latents only", {
        mend: "load the autoencoder from its checkpoint",
      }),
    );
  return Object.assign(sae, {
    encode: refuse,
    encodeRaw: refuse,
    reconstructRaw: refuse,
    measureRaw: refuse,
    decode: refuse,
  });
}
