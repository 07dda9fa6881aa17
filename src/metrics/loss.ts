/**
 * What a language model loses when an autoencoder's reconstruction stands in the place of one of
 * its tensors: cross-entropy, Kullback-Leibler divergence, loss recovered. The activations are
 * computed anew, in float32, from the tokens; a file's float16 has no part in it.
 */

import { availableParallelism } from "node:os";
import type { LogSums } from "../engine/log-sums.ts";
import { openLogSums } from "../engine/registry.ts";
import type { Sae } from "../inference/sae.ts";
import { keepFreedMemory } from "../language-model/keep-memory.ts";
import type { LanguageModel } from "../language-model/load.ts";
import { openHead, openSpliced, type SplicedModel } from "../language-model/spliced.ts";
import { bytesOf } from "../util/bytes.ts";
import { messageOf, SaettaError, UsageError } from "../util/errors.ts";
import { freeArray } from "../util/free-array.ts";
import { ABLATION_DEFINITIONS, type Ablation, type AblationResult } from "./ablation.ts";
import type { Contexts } from "./loss-contexts.ts";
import { PLAIN_SUMS } from "./loss-math.ts";
import { gather, scattered } from "./spliced-rows.ts";

/**
 * In the place of the tensor: nothing else, the reconstruction, zeros, the mean. Means over the
 * same predictions, in nats.
 */
export interface LossRecovered {
  /** Path of the model. */
  readonly model: string;
  readonly tensor: string;
  readonly text: string;
  /** Predictions that count, and rows that were spliced. */
  readonly predictions: number;
  readonly splicedRows: number;
  readonly crossEntropy: {
    readonly original: number;
    readonly reconstruction: number;
    readonly zero: number;
    readonly mean: number;
  };
  readonly klDivergence: { readonly reconstruction: number; readonly zero: number; readonly mean: number };
  /** null where the ablation costs nothing. */
  readonly lossRecovered: { readonly fromZero: number | null; readonly fromMean: number | null };
  /** Largest difference of a logit with the tensor's own values spliced in; 0: the same bits. */
  readonly identityDifference: number;
  readonly ablate: Ablate;
  readonly definitions: Definitions;
  /** Absent unless asked for. */
  readonly ablation?: AblationResult;
}

/**
 * Which rows zeros and the mean stand in: all of them, or those that the reconstruction stands in.
 */
export type Ablate = "all" | "spliced";

/** What the numbers mean, for people; part of the JSON. */
export interface Definitions {
  readonly crossEntropy: string;
  readonly original: string;
  readonly reconstruction: string;
  readonly zero: string;
  readonly mean: string;
  readonly klDivergence: string;
  readonly fromZero: string;
  readonly fromMean: string;
}

function definitionsOf(ablate: Ablate): Definitions {
  const rows = ablate === "all" ? "every row" : "those rows";
  return {
    crossEntropy: "mean of -ln p(next token), in nats, over the spliced rows that have a next token in their context",
    original: "of the model as it is",
    reconstruction:
      "with the autoencoder's output in the spliced rows: all but those of excluded tokens (--exclude-tokens), which keep their own activation",
    zero: `with zeros in ${rows} (--ablate ${ablate})`,
    mean: `with the mean of the spliced rows in ${rows}`,
    klDivergence:
      "mean of sum p ln(p / q) over the same rows, in nats; p: of the model as it is, q: with the autoencoder's output",
    fromZero: "loss recovered: (CE zero - CE reconstruction) / (CE zero - CE original)",
    fromMean: "the same with the mean in the place of zeros",
  };
}

/**
 * Tokens that a thread works on at a time, as in a harvest; and what the logits of a batch may
 * take.
 */
const TOKENS_A_THREAD = 512;
const LOGIT_BYTES = 128 * 1024 * 1024;

/** What is asked of an autoencoder here. */
export type Reconstructor = Pick<Sae, "path" | "dims" | "reconstructRaw">;

export interface LossOptions {
  /** Default "all", as SAELens does. */
  readonly ablate?: Ablate | undefined;
  /** Latents of the only autoencoder to remove. Default: none. */
  readonly ablation?: Ablation | undefined;
  /** Of the language model; default: all processors. */
  readonly threads?: number | undefined;
  /** Called with a line about a result that makes no sense. */
  readonly onNote?: ((note: string) => void) | undefined;
  /** Called with the tokens done and to be done. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/**
 * Measures every autoencoder on the same contexts, in this order. Throws SaettaError when one is
 * not as wide as the tensor or there are fewer than two tokens.
 */
export async function measureLoss(
  model: LanguageModel,
  tensor: string,
  contexts: Contexts,
  saes: readonly Reconstructor[],
  { ablate = "all", ablation, threads = availableParallelism(), onNote, onProgress }: LossOptions = {},
): Promise<LossRecovered[]> {
  const { context, count } = contexts;
  if (count === 0 || context < 2)
    throw new SaettaError("there is no text of two tokens or more to run the model on", {
      where: contexts.description,
    });
  const trial = (await contexts.read(0, 1)).ids;
  const spliced = await openSpliced(model, tensor, threads, trial);
  const giveBack = keepFreedMemory();
  let logSums: LogSums | undefined;
  try {
    for (const sae of saes) {
      if (sae.dims.dIn === spliced.width) continue;
      throw new SaettaError(`takes rows of ${sae.dims.dIn} numbers, but the tensor '${tensor}' has ${spliced.width}`, {
        where: sae.path ?? "the autoencoder",
      });
    }
    const fit = Math.floor(LOGIT_BYTES / (4 * context * spliced.vocabulary));
    const size = spliced.batch ?? Math.max(1, Math.min(fit, Math.floor((TOKENS_A_THREAD * threads) / context)));
    const total = count * context;
    onProgress?.(0, total);
    const { mean, rows } = await meanOf(model, tensor, contexts, threads, size, spliced.width);
    const splices: readonly Splice[] = [
      { rows: ablate, replace: async (into) => into.fill(0) },
      {
        rows: ablate,
        replace: async (into) => {
          for (let at = 0; at < into.length; at += mean.length) into.set(mean, at);
        },
      },
      ...saes.map(
        (sae): Splice => ({
          rows: "spliced",
          replace: async (into) =>
            into.set((await sae.reconstructRaw(bytesOf(into), "f32", into.length / mean.length)).output),
        }),
      ),
    ];
    logSums = await openLogSums(threads).catch((thrown: unknown) => {
      if (!(thrown instanceof SaettaError) || thrown instanceof UsageError) throw thrown;
      onNote?.(
        `losses are summed in JavaScript, many times slower than by the cpu engine's kernels (${messageOf(thrown)})`,
      );
      return PLAIN_SUMS;
    });
    const none = () => ({ crossEntropy: 0, divergence: 0, firings: 0, increase: 0, active: 0 });
    const sums = { original: 0, predictions: 0, splices: [...splices, ...(ablation?.groups ?? [])].map(none) };
    for (let first = 0; first < count; first += size) {
      const batch = Math.min(size, count - first);
      await addBatch(spliced, logSums, await contexts.read(first, batch), batch, { splices, ablation }, sums);
      onProgress?.((first + batch) * context, total);
    }
    const { predictions } = sums;
    if (predictions === 0)
      throw new SaettaError("no spliced row has a next token", {
        where: contexts.description,
        mend: "give longer contexts",
      });
    const original = sums.original / predictions;
    const guessing = Math.log(spliced.vocabulary);
    if (original > guessing) {
      onNote?.(
        `${model.path}: cross-entropy ${original.toFixed(2)} is above ln(${spliced.vocabulary}) = ${guessing.toFixed(2)}, worse than guessing: is this its tokenizer?`,
      );
    }
    const [zeroed, averaged, ...rest] = sums.splices.slice(0, splices.length).map((sum) => ({
      ce: sum.crossEntropy / predictions,
      kl: sum.divergence / predictions,
    }));
    return rest.map(({ ce, kl }) => ({
      model: model.path,
      tensor,
      text: contexts.description,
      predictions,
      splicedRows: rows,
      crossEntropy: { original, reconstruction: ce, zero: zeroed!.ce, mean: averaged!.ce },
      klDivergence: { reconstruction: kl, zero: zeroed!.kl, mean: averaged!.kl },
      lossRecovered: { fromZero: recovered(zeroed!.ce, ce, original), fromMean: recovered(averaged!.ce, ce, original) },
      identityDifference: spliced.identityDifference,
      ablate,
      definitions: definitionsOf(ablate),
      ...(ablation && { ablation: ablationResult(ablation, sums, splices.length) }),
    }));
  } finally {
    await logSums?.close();
    await spliced.close();
    giveBack();
  }
}

/** Something in the place of rows; `replace` changes rows [rows * width] in place. */
interface Splice {
  readonly rows: Ablate;
  readonly replace: (into: Float32Array) => Promise<unknown>;
  /** Of each spliced row: 1 where a latent that is removed is active. */
  readonly active?: Uint8Array;
}

interface Sums {
  original: number;
  predictions: number;
  /** The last three are of removed latents: rows with one, and what the loss grows by there. */
  readonly splices: { crossEntropy: number; divergence: number; firings: number; increase: number; active: number }[];
}

/** `first`: the first splice that removes latents. */
function ablationResult({ groups }: Ablation, { original, predictions, splices }: Sums, first: number): AblationResult {
  const effects = groups.map((latents, i) => {
    const { crossEntropy, divergence, firings, increase, active } = splices[first + i]!;
    return {
      latents,
      firings,
      crossEntropy: crossEntropy / predictions,
      lossIncrease: (crossEntropy - original) / predictions,
      lossIncreaseWhereActive: active === 0 ? null : increase / active,
      klDivergence: divergence / predictions,
    };
  });
  return { effects, definitions: ABLATION_DEFINITIONS };
}

/** The splices that remove latents from the rows that are spliced. */
async function removals(ablation: Ablation | undefined, rows: Float32Array): Promise<Splice[]> {
  if (ablation === undefined || rows.length === 0) return [];
  const removed = await ablation.remove(rows);
  return removed.map(({ rows: without, active }) => ({
    rows: "spliced",
    replace: (into) => Promise.resolve(into.set(without)),
    active,
  }));
}

async function addBatch(
  model: SplicedModel,
  logSums: LogSums,
  { ids, spliced }: { readonly ids: Int32Array; readonly spliced: Uint8Array },
  batch: number,
  { splices: fixed, ablation }: { readonly splices: readonly Splice[]; readonly ablation: Ablation | undefined },
  sums: Sums,
): Promise<void> {
  const { vocabulary, width } = model;
  const context = ids.length / batch;
  const rows = Uint32Array.from(ids.keys()).filter((row) => spliced[row] === 1 && (row + 1) % context !== 0);
  const all = new Uint8Array(spliced.length).fill(1);
  /** -ln p(next token) of each row. */
  const losses = (logits: Float32Array, normalizers: Float64Array): Float64Array =>
    Float64Array.from(rows, (row, i) => normalizers[i]! - logits[row * vocabulary + ids[row + 1]!]!);
  const { activations, logits } = await model.original(ids, batch);
  const splices = [...fixed, ...(await removals(ablation, gather(activations, spliced, width)))];
  const run = async ({ rows: scope, replace }: Splice): Promise<Float32Array> => {
    const flags = scope === "all" ? all : spliced;
    const values = gather(activations, flags, width);
    await replace(values);
    return model.spliced(ids, batch, scattered(activations, flags, width, values));
  };
  /** The logits of the next one are computed while those of the last are summed. */
  let running: Promise<Float32Array> | undefined;
  const start = (splice: Splice | undefined): void => {
    running = splice === undefined ? undefined : run(splice);
    running?.catch(() => undefined);
  };
  start(splices[0]);
  try {
    const original = { logits, logSums: (await logSums.of(logits, vocabulary, rows)).logSums };
    const before = losses(logits, original.logSums);
    sums.original += total(before);
    sums.predictions += rows.length;
    for (const [i, { active }] of splices.entries()) {
      const other = (await running)!;
      start(splices[i + 1]);
      const found = await logSums.of(other, vocabulary, rows, original);
      const after = losses(other, found.logSums);
      const sum = sums.splices[i]!;
      sum.crossEntropy += total(after);
      sum.divergence += total(found.divergence);
      if (active !== undefined) addActive(sum, active, { spliced, rows, before, after });
      freeArray(other);
    }
  } finally {
    // The model is closed next, which it must not be in the middle of a run.
    await running?.catch(() => undefined);
  }
  freeArray(logits);
}

/** Adds the rows with an active latent: their number, and by how much the loss grows there. */
function addActive(
  sum: Sums["splices"][number],
  active: Uint8Array,
  of: {
    readonly spliced: Uint8Array;
    readonly rows: Uint32Array;
    readonly before: Float64Array;
    readonly after: Float64Array;
  },
): void {
  const fires = new Uint8Array(of.spliced.length);
  let at = 0;
  for (const [row, flag] of of.spliced.entries()) if (flag === 1) fires[row] = active[at++]!;
  for (const flag of fires) sum.firings += flag;
  for (const [i, row] of of.rows.entries()) {
    if (fires[row] !== 1) continue;
    sum.increase += of.after[i]! - of.before[i]!;
    sum.active++;
  }
}

function total(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0);
}

/**
 * The mean [width] of the spliced rows, and their number; in a pass over all contexts that stops at
 * the tensor.
 */
async function meanOf(
  model: LanguageModel,
  tensor: string,
  contexts: Contexts,
  threads: number,
  size: number,
  width: number,
): Promise<{ readonly mean: Float32Array; readonly rows: number }> {
  const head = await openHead(model, tensor, threads);
  const sums = new Float64Array(width);
  let rows = 0;
  try {
    for (let first = 0; first < contexts.count; first += size) {
      const batch = Math.min(size, contexts.count - first);
      const { ids, spliced } = await contexts.read(first, batch);
      const part = gather((await head.run(ids, batch, [tensor])).get(tensor)!.values, spliced, width);
      for (let i = 0; i < part.length; i++) sums[i % width]! += part[i]!;
      rows += part.length / width;
    }
  } finally {
    await head.close();
  }
  if (rows === 0)
    throw new SaettaError("every row of the text is of an excluded token", {
      where: contexts.description,
      mend: "pass --exclude-tokens none",
    });
  return { mean: Float32Array.from(sums, (sum) => sum / rows), rows };
}

function recovered(ablated: number, reconstruction: number, original: number): number | null {
  return ablated > original ? (ablated - reconstruction) / (ablated - original) : null;
}
