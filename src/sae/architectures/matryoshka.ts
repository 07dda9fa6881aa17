/**
 * Matryoshka: Bussmann et al. 2025 (arXiv 2503.17547). The first m latents alone, for each m of a
 * list of prefixes, must reconstruct too, so that early latents stay general. One selection, by
 * BatchTopK or TopK; one reconstruction per prefix.
 */

import { z } from "zod";
import { FormatError, UsageError } from "../../util/errors.ts";
import { CORE_PARAMS } from "../params.ts";
import type { Architecture } from "./architecture.ts";
import {
  annealedK,
  annealOption,
  atMostLatents,
  auxkOptions,
  batchNumbers,
  cutOptions,
  kOption,
  largestK,
  readMeanK,
} from "./options.ts";
import { wholeK } from "./topk.ts";

export interface MatryoshkaSpec {
  readonly architecture: "matryoshka";
  readonly k: number;
  readonly auxk: number;
  /** Ascending; the last is the number of latents. */
  readonly prefixes: readonly number[];
  /** Of the loss of each prefix; they sum to 1. */
  readonly weights: readonly number[];
  readonly selection: "batchtopk" | "topk";
  /** Of the selection topk, where k falls while training: the k that it starts from. */
  readonly startK?: number | undefined;
}

interface Options {
  readonly k: number;
  readonly auxk: number;
  readonly prefixes: readonly number[];
  readonly prefixWeights?: readonly number[] | undefined;
  readonly prefixSelection: MatryoshkaSpec["selection"];
  readonly kAnneal?: string | undefined;
}

const MOST_PREFIXES = 16;
/** Fractions of all latents, where no prefixes are asked for. */
const USUAL = [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1];

export const matryoshka = {
  name: "matryoshka",
  options: {
    ...kOption,
    ...auxkOptions,
    ...annealOption,
    ...cutOptions,
    prefixes: z
      .array(z.number().positive())
      .min(1)
      .describe("latents of each prefix that reconstructs alone, as numbers or as fractions of all, ascending")
      .meta({ placeholder: "LIST" }),
    prefixWeights: z
      .array(z.number().positive())
      .min(1)
      .describe("weight of the loss of each prefix")
      .meta({ placeholder: "LIST", default: "all alike" }),
    prefixSelection: z.enum(["batchtopk", "topk"]).describe("what selects the latents"),
  },
  defaults: {
    ...{ k: 32, auxk: 256, auxkCoef: 1 / 32, thresholdDecay: 0.99, thresholdStart: 0 },
    ...{ prefixes: USUAL, prefixSelection: "batchtopk" },
  },
  params: ({ selection }) => (selection === "topk" ? CORE_PARAMS : [...CORE_PARAMS, "cut"]),
  rules: ({ k, auxk, prefixes, weights, selection, startK = k }) => ({
    live: { kind: selection, k: startK },
    dead: auxk > 0 ? { kind: "topk", k: auxk } : undefined,
    inference: selection === "topk" ? { kind: "topk", k } : { kind: "threshold", param: "cut" },
    prefixes: prefixes.map((end, g) => ({ end, weight: weights[g]! / weights.at(-1)! })),
  }),
  spec: (options, latents) => {
    const { k, auxk, prefixes, prefixWeights, prefixSelection, kAnneal } = options as unknown as Options;
    if (prefixSelection === "topk") wholeK(k, latents, kAnneal);
    else atMostLatents(k, latents, kAnneal);
    const startK = prefixSelection === "topk" ? Math.ceil(largestK(k, kAnneal)) : k;
    const ends = prefixEnds(prefixes, latents);
    const weights = prefixWeights ?? ends.map(() => 1);
    if (weights.length !== ends.length) throw wrongWeights(weights.length, ends, prefixes.length);
    const sum = weights.reduce((a, b) => a + b, 0);
    return {
      ...{ architecture: "matryoshka", k, auxk, prefixes: ends, selection: prefixSelection },
      weights: weights.map((weight) => weight / sum),
      ...(startK === k ? {} : { startK }),
    };
  },
  // The engine's weights are relative to the last one's.
  lossWeight: ({ weights }) => weights.at(-1)!,
  stepHyper: (options, { step, rows }) => {
    const { k, kAnneal } = options as unknown as Options;
    return { ...batchNumbers(options as never, step, rows), rowK: Math.round(annealedK(k, kAnneal, step)) };
  },
  like: ({ prefixes, weights, selection }) => ({ prefixes, prefixWeights: weights, prefixSelection: selection }),
  numbers: ({ k, auxk }) => ({ k, auxk }),
  called: { sparsify: "matryoshka", dictionary_learning: "MatryoshkaBatchTopKSAE" },
  cfg: {
    isOfSparsify: false,
    write: ({ k, auxk, prefixes, weights, selection }) => ({
      sparsify: { k },
      own: { auxk, prefixes: [...prefixes], prefix_weights: [...weights], prefix_selection: selection },
    }),
    read: (sparsify, own = sparsify.fields("saetta")) => {
      const selection = own.string("prefix_selection");
      if (selection !== "topk" && selection !== "batchtopk")
        throw new FormatError(`prefix_selection "${selection}" is unknown`, { where: own.where });
      const prefixes = own.integers("prefixes");
      const weights = own.numbers("prefix_weights");
      if (!isAscending(prefixes) || prefixes.length === 0)
        throw new FormatError(`"prefixes" must ascend from 1 up, but are ${JSON.stringify(prefixes)}`, {
          where: own.where,
        });
      if (sparsify.has("num_latents") && prefixes.at(-1) !== sparsify.integer("num_latents"))
        throw new FormatError(`the last of "prefixes" is ${prefixes.at(-1)}, not all latents`, { where: own.where });
      if (weights.length !== prefixes.length || !weights.every((weight) => weight > 0))
        throw new FormatError(`"prefix_weights" must be above 0, one for each prefix`, { where: own.where });
      const k = selection === "topk" ? sparsify.integer("k", 1) : readMeanK(sparsify);
      return { ...{ architecture: "matryoshka", k, auxk: own.integer("auxk") }, prefixes, weights, selection };
    },
  },
} as const satisfies Architecture<MatryoshkaSpec>;

/** Numbers of latents, from numbers or fractions; the whole autoencoder comes last. */
function prefixEnds(prefixes: readonly number[], latents: number): readonly number[] {
  const areFractions = prefixes.every((each) => each <= 1);
  const rounded = areFractions ? prefixes.map((each) => Math.round(each * latents)) : prefixes;
  // Of few latents several of the usual fractions are the same number, or none.
  const isUsual = prefixes.length === USUAL.length && prefixes.every((each, g) => each === USUAL[g]);
  const ends = isUsual ? [...new Set(rounded)].filter((end) => end > 0) : rounded;
  const all = ends.at(-1) === latents ? ends : [...ends, latents];
  if (!isAscending(all) || all.length > MOST_PREFIXES)
    throw new UsageError(
      `--prefixes ${prefixes.join(",")} must be ${MOST_PREFIXES} at most, ascending, and at most the ${latents} latents`,
      { mend: "give numbers of latents, or fractions of all" },
    );
  return all;
}

function isAscending(ends: readonly number[]): boolean {
  return ends.every((end, g) => Number.isInteger(end) && end > (g === 0 ? 0 : ends[g - 1]!));
}

function wrongWeights(weights: number, ends: readonly number[], given: number): UsageError {
  const numbers = `${weights} number${weights === 1 ? "" : "s"}`;
  const added = given < ends.length ? ` (the last one, of all ${ends.at(-1)} latents, is added)` : "";
  return new UsageError(`--prefix-weights has ${numbers} for ${ends.length} prefixes${added}`, {
    mend: "give one for each prefix",
  });
}
