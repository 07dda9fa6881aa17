/**
 * Trains an autoencoder on a random dictionary, as `train` trains any, and says how much of the
 * dictionary it found.
 */

import type { TrainOptions } from "../config.ts";
import type { Sae } from "../inference/sae.ts";
import type { Report } from "../run-files/metrics.ts";
import { train } from "../train/train.ts";
import { type DictionaryOptions, syntheticDictionary } from "./dictionary.ts";
import { type FiringMatch, firingMatch } from "./firing-match.ts";
import { type Recovery, recovery } from "./recovery.ts";

export const DICTIONARY: DictionaryOptions = {
  directions: 256,
  width: 64,
  active: 4,
  amplitude: [0.5, 1.5],
  noise: 0.02,
  together: 0,
  rows: 3_000_000,
  seed: 0,
};

/**
 * What training is told when nobody says otherwise: one pass over the rows, none of which it sees
 * twice.
 */
export const TRAINING = { latents: 512, k: 4, batch: 1024, lr: 1e-3, auxk: 0 } as const satisfies TrainOptions;

export interface SyntheticOptions {
  readonly dictionary?: Partial<DictionaryOptions>;
  readonly training?: Omit<TrainOptions, "seed" | "holdout" | "tokens" | "epochs">;
  readonly signal?: AbortSignal | undefined;
  readonly onNote?: ((note: string) => void) | undefined;
  readonly onReport?: ((report: Report) => void) | undefined;
}

export interface SyntheticReport {
  readonly dictionary: DictionaryOptions;
  readonly training: Pick<
    TrainOptions,
    "architecture" | "latents" | "k" | "auxk" | "targetL0" | "batch" | "lr" | "warmup" | "decay" | "deadTokens" | "ema"
  >;
  readonly engine: string;
  readonly reason: "done" | "stopped";
  /** Rows trained on, and the seconds that making them and training on them took. */
  readonly rows: number;
  readonly seconds: number;
  /**
   * Of the last batch, which training had not seen before; NaN when there was none or it is not
   * finite.
   */
  readonly fvu: number;
  readonly dead: DeadLatents;
  readonly recovery: Recovery;
  /** On rows past those of training. */
  readonly firings: FiringMatch;
}

/** Rows past those of training on which firings are compared. */
const TEST_ROWS = 8192;

/** Latents that did not fire for `deadTokens` rows, over the logged steps. */
export interface DeadLatents {
  readonly most: number;
  readonly mostAtStep: number;
  /**
   * Sum of all falls of their number from one logged step to the next: so many at least fired
   * again.
   */
  readonly revived: number;
  readonly atEnd: number;
}

/** Runs the bench; nothing is written. Rejects as `train` does. */
export async function benchSynthetic(options: SyntheticOptions = {}): Promise<SyntheticReport> {
  const dictionary = { ...DICTIONARY, ...options.dictionary };
  const source = syntheticDictionary({ ...dictionary, rows: dictionary.rows + TEST_ROWS });
  const { signal, onNote, onReport } = options;
  // Rows are independent of each other already.
  const fixed = {
    seed: dictionary.seed,
    tokens: dictionary.rows,
    holdout: 0,
    shuffle: false,
    out: false,
    signal,
    onNote,
  } as const;
  const { k, auxk, ...others } = TRAINING;
  // Where the architecture has them.
  const topk = options.training?.architecture === "jumprelu" ? {} : { k, auxk };
  await using run = await train(source, { ...others, ...topk, ...options.training, ...fixed });
  const dead = { most: 0, mostAtStep: 0, revived: 0, atEnd: 0 };
  for await (const report of run) {
    follow(dead, report);
    onReport?.(report);
  }
  const { reason, tokens, report, sae } = await run.finished;
  const { architecture, latents, targetL0, batch, lr, warmup, decay, deadTokens, ema } = run.config;
  const decoder = await decoderOf(sae);
  const { rows: first, children = 0 } = dictionary;
  const firings = await firingMatch(sae, source, decoder, { first, count: TEST_ROWS, children });
  return {
    dictionary,
    training: {
      architecture,
      latents,
      k: run.config.k,
      auxk: run.config.auxk,
      targetL0,
      batch,
      lr,
      warmup,
      decay,
      deadTokens,
      ema,
    },
    engine: run.engine,
    reason,
    rows: tokens,
    seconds: report?.elapsed_s ?? 0,
    fvu: report?.fvu ?? Number.NaN,
    dead,
    recovery: recovery(source.truth, decoder, dictionary.width),
    firings,
  };
}

function follow(dead: { -readonly [K in keyof DeadLatents]: number }, report: Report): void {
  dead.revived += Math.max(0, dead.atEnd - report.dead);
  dead.atEnd = report.dead;
  if (report.dead <= dead.most) return;
  dead.most = report.dead;
  dead.mostAtStep = report.step;
}

/** The decoder rows [n, d]: what a code of one latent with value 1 adds to a code of none. */
async function decoderOf(sae: Sae): Promise<Float32Array> {
  const { dIn: d, n } = sae.dims;
  const bias = await sae.decode({ k: 1, latent: new Uint32Array(1), value: new Float32Array(1) });
  const rows = await sae.decode({
    k: 1,
    latent: Uint32Array.from({ length: n }, (_, j) => j),
    value: new Float32Array(n).fill(1),
  });
  for (let at = 0; at < rows.length; at++) rows[at] -= bias[at % d];
  return rows;
}
