/** Passages of latents for a language model to name them by, and to test the names. */

import { rowsOf } from "../data/chunks.ts";
import { common, countRows, type Range } from "../data/holdout.ts";
import type { Source } from "../data/source.ts";
import { NONE } from "../engine/engine.ts";
import {
  DEFINITIONS,
  FORMAT,
  FORMAT_VERSION,
  type Interpretation,
  type Interpreted,
  type Item,
  type Shown,
} from "../explorer/shared/interpretation.ts";
import type { FeatureReader } from "../explorer/shared/reader.ts";
import type { Latent, Passage } from "../explorer/shared/source.ts";
import type { Sae } from "../inference/sae.ts";
import type { Tokenizer } from "../language-model/tokenizer.ts";
import { SaettaError } from "../util/errors.ts";
import { PURPOSE, Rng } from "../util/rng.ts";
import { spanAround, TokenBlocks } from "./row-text.ts";

/** Random passages, of which each latent gets some in which it does not fire, and rows of one. */
const RANDOM = 256;
const BEFORE = 16;
const AFTER = 15;
/** Passages of a test in which the latent fires; as many are added in which it does not. */
const TESTED = 16;
/** Share of a passage's largest value above which a token is marked. */
const MARKED = 0.3;

/** A passage of the data, and the latents that fire anywhere in it. */
export interface RandomPassage {
  readonly tokens: readonly string[];
  readonly firing: ReadonlySet<number>;
}

/**
 * Passages around random rows of the ranges, each of another place; the codes of their rows are
 * computed, those of rows that are left out of the ranges are not looked at.
 */
export async function randomPassages(
  sae: Sae,
  source: Source,
  ranges: readonly Range[],
  tokenizer: Tokenizer,
  nonFinite: "stop" | "skip",
): Promise<RandomPassage[]> {
  const rng = new Rng(PURPOSE.sample, RANDOM);
  const blocks = new TokenBlocks(source);
  const total = countRows(ranges);
  const spans = new Map<number, Range>();
  let free = 0;
  for (const at of Array.from({ length: RANDOM }, () => Math.floor(rng.uniform() * total)).sort((a, b) => a - b)) {
    const { first, end } = await spanAround(source, blocks, rowAt(ranges, at), BEFORE, AFTER);
    if (first < free) continue; // it would overlap the one before
    spans.set(first, { first, count: end - first });
    free = end;
  }
  const windows = [...spans.values()];
  const firing = windows.map(() => new Set<number>());
  let window = 0;
  for await (const { raw, rows, numbers, refuse } of rowsOf(source, common(windows, ranges), sae.chunks(nonFinite))) {
    const { k, latent } = await sae.encodeRaw(raw, source.dtype, rows, refuse);
    for (let row = 0; row < rows; row++) {
      while (numbers[row] >= windows[window].first + windows[window].count) window++;
      for (const each of latent.subarray(row * k, (row + 1) * k)) if (each !== NONE) firing[window].add(each);
    }
  }
  const passages: RandomPassage[] = [];
  for (const [i, { first, count }] of windows.entries())
    passages.push({ tokens: tokenizer.pieces(await blocks.read(first, first + count)), firing: firing[i] });
  return passages;
}

/** The row that is number `at` of the ranges. */
function rowAt(ranges: readonly Range[], at: number): number {
  let left = at;
  for (const { first, count } of ranges) {
    if (left < count) return first + left;
    left -= count;
  }
  throw new RangeError(`there is no row ${at}`);
}

/** The file for some latents. Throws SaettaError where the features have no text. */
export async function interpretationOf(
  reader: FeatureReader,
  latents: readonly number[],
  random: readonly RandomPassage[],
  autoencoder: string,
): Promise<Interpretation> {
  const { text } = await reader.summary();
  if (!text)
    throw new SaettaError("the features have no text, so there is nothing to read", {
      where: autoencoder,
      mend: "make the report from activations with tokens",
    });
  const found: Interpreted[] = [];
  for (const latent of latents) found.push(interpretedOf(await reader.latent(latent), random));
  return { format: FORMAT, version: FORMAT_VERSION, autoencoder, definitions: DEFINITIONS, latents: found };
}

/** Passages that explain are not those that test. */
export function interpretedOf(latent: Latent, random: readonly RandomPassage[]): Interpreted {
  const rng = new Rng(PURPOSE.sample, latent.latent);
  const drawn = latent.ranges.flatMap(({ passages }) => passages);
  const isEnough = drawn.length >= TESTED / 2;
  const isTest = (i: number) => !isEnough && i % 2 === 1;
  const explain = latent.strongest.filter((_, i) => !isTest(i));
  const tests = [...drawn, ...latent.strongest.filter((_, i) => isTest(i))].slice(0, TESTED);
  const silent = shuffled(
    random.filter(({ firing, tokens }) => !firing.has(latent.latent) && tokens.length > 1),
    rng,
  ).slice(0, tests.length);
  const marks = tests.map(marksOf);
  const wrong = Math.ceil(marks.reduce((sum, each) => sum + each.length, 0) / Math.max(1, marks.length));
  const fires = (marked: (i: number) => readonly number[]): Item[] =>
    tests.map(({ tokens }, i) => ({ tokens, marked: marked(i), activating: true }));
  const not = (marked: (tokens: readonly string[]) => readonly number[]): Item[] =>
    silent.map(({ tokens }) => ({ tokens, marked: marked(tokens), activating: false }));
  const anyOf = (tokens: readonly string[]) =>
    shuffled(
      tokens.map((_, i) => i),
      rng,
    )
      .slice(0, wrong)
      .sort((a, b) => a - b);
  return {
    latent: latent.latent,
    name: latent.label?.name ?? "",
    note: latent.label?.note ?? "",
    explain: explain.map(({ tokens, values }): Shown => ({ tokens, values })),
    promoted: (latent.promoted ?? []).map(({ text }) => text),
    suppressed: (latent.suppressed ?? []).map(({ text }) => text),
    detection: shuffled([...fires(() => []), ...not(() => [])], rng),
    fuzzing: shuffled([...fires((i) => marks[i]), ...not(anyOf)], rng),
  };
}

function marksOf({ values }: Passage): number[] {
  const most = Math.max(...values);
  return values.flatMap((value, i) => (value > MARKED * most ? [i] : []));
}

function shuffled<T>(all: readonly T[], rng: Rng): T[] {
  const list = [...all];
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(rng.uniform() * (i + 1));
    [list[i], list[j]] = [list[j], list[i]];
  }
  return list;
}
