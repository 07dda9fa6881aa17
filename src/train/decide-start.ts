/** What a sample of the rows decides before the first step of a run. */

import { isIn } from "../data/holdout.ts";
import { normalizePairs, pairNormalizationFor, splitSample } from "../data/pair-statistics.ts";
import { PassedOver, positionsIn, preflight, type RunPreflight } from "../data/preflight.ts";
import { notesOf, zeroRowsNote } from "../data/preflight-words.ts";
import {
  geometricMedian,
  meanVariance,
  normalizationFor,
  normalizeRows,
  type Sample,
  strideSample,
} from "../data/statistics.ts";
import type { Normalization } from "../engine/engine.ts";
import type { FoundSae } from "../inference/weights.ts";
import { normalizationOf, targetNormalizationOf } from "../sae/description.ts";
import type { RunPlan } from "./plan.ts";
import { fromFirst } from "./rank-shard.ts";
import { scaleNotes } from "./recipe-notes.ts";

/** The same on all ranks. */
interface Decided {
  readonly mseScale: number;
  readonly normalization: Normalization;
  /** Of the targets of a transcoder. */
  readonly target: Normalization | null;
  /** The pre-bias [d] of a new autoencoder. */
  readonly median: readonly number[] | null;
  /** Means of the normalised inputs [dIn] and targets [dOut] of a new transcoder. */
  readonly means: { readonly x: readonly number[]; readonly y: readonly number[] } | null;
}

export interface StartDecision extends Decided {
  /** The normalised rows or pairs; empty where none were drawn, as on all ranks but the first. */
  readonly sample: Float32Array;
  /** What they showed as they are in the file. */
  readonly preflight: RunPreflight | undefined;
}

/** What is decided besides, and the spread of an element of what is reconstructed. */
type Outcome = Decided & { readonly spread: () => number };

/**
 * Draws the sample on the first of several ranks, says what it shows, and decides from it how rows
 * are normalised, the scale of the loss and where biases start. `initial`: the autoencoder to start
 * from.
 */
export async function decideStart(
  plan: RunPlan,
  initial: FoundSae | undefined,
  onNote: (note: string) => void,
): Promise<StartDecision> {
  const { source, choice, config, collective } = plan;
  if (choice.zeros > 0) onNote(zeroRowsNote(choice.zeros, source.rows));
  let sample: Float32Array = new Float32Array(0);
  let found: RunPreflight | undefined;
  const decided = await fromFirst<Decided>(collective, async () => {
    if (config.mseScale === "auto" || initial === undefined) {
      const drawn = await draw(plan);
      sample = drawn.values;
      found = drawn.preflight;
    }
    const { spread, ...outcome } =
      source.dOut === undefined
        ? decideAutoencoder(plan, initial, sample, onNote)
        : decideTranscoder(plan, initial, sample, source.dOut);
    if (found === undefined) return outcome;
    for (const note of notesOf(found)) onNote(note);
    const raw = found.norms.median / Math.sqrt(source.dIn);
    for (const note of scaleNotes(config, outcome.normalization, spread(), raw)) onNote(note);
    return outcome;
  });
  return { ...decided, sample, preflight: found };
}

async function draw({ source, choice, config }: RunPlan): Promise<Sample & { readonly preflight: RunPreflight }> {
  const passed = new PassedOver(
    (row) => isIn(choice.holdout, row) || choice.masked.has(row) || choice.leftOut.has(row),
  );
  const sample = await strideSample(source, {
    excluded: choice.untrained,
    wanted: config.statisticsRows,
    seed: config.seed,
    nonFinite: config.nonFinite,
    passedOver: passed.note,
  });
  const { values, numbers, everything } = sample;
  const { dIn, dOut } = source;
  const inputs = dOut === undefined ? values : splitSample(values, { dIn, dOut }).x;
  const positionOf = positionsIn(source, choice.masked);
  const looked = preflight(inputs, dIn, positionOf && numbers.map(positionOf));
  const { nonFinite, excluded } = passed;
  return { ...sample, preflight: { ...looked, everything, nonFinite, excluded } };
}

/** Normalises the sample [rows, dIn]. */
function decideAutoencoder(
  { source: { dIn }, config }: RunPlan,
  initial: FoundSae | undefined,
  sample: Float32Array,
  onNote: (note: string) => void,
): Outcome {
  const by =
    initial === undefined ? normalizationFor(config.normalize, sample, dIn) : normalizationOf(initial.description);
  normalizeRows(sample, dIn, by);
  const mseScale = config.mseScale === "auto" ? 1 / meanVariance(sample, dIn) : config.mseScale;
  const spread = () => Math.sqrt(config.mseScale === "auto" ? 1 / mseScale : meanVariance(sample, dIn));
  const outcome = { mseScale, normalization: by, target: null, median: null, means: null, spread };
  if (initial !== undefined) return outcome;
  const { median, converged, iterations } = geometricMedian(sample, dIn);
  if (!converged)
    onNote(`the geometric median still moved after ${iterations} iterations; the run starts from where it was`);
  return { ...outcome, median: [...median] };
}

/** Normalises the sample of pairs [rows, dIn + dOut]. */
function decideTranscoder(
  { source: { dIn }, config }: RunPlan,
  initial: FoundSae | undefined,
  sample: Float32Array,
  dOut: number,
): Outcome {
  const widths = { dIn, dOut };
  const by =
    initial === undefined
      ? pairNormalizationFor(config.normalize, sample, widths)
      : { x: normalizationOf(initial.description), y: targetNormalizationOf(initial.description) };
  const drawn = sample.length > 0 ? normalizePairs(sample, widths, by) : undefined;
  return {
    mseScale: config.mseScale === "auto" ? 1 / drawn!.varianceY : config.mseScale,
    normalization: by.x,
    target: by.y,
    median: null,
    means: initial === undefined ? { x: [...drawn!.meanX], y: [...drawn!.meanY] } : null,
    spread: () => Math.sqrt(drawn!.varianceY),
  };
}
