/** Contexts of token ids that a language model is run on, and which of their rows are spliced. */

import { isIn, type Range } from "../data/holdout.ts";
import { type ExcludePositions, type ExcludeTokens, excludedIds } from "../data/mask.ts";
import type { Source } from "../data/source.ts";
import { SaettaError } from "../util/errors.ts";

export interface Contexts {
  /** For people: "53 contexts of 256 tokens of acts.h5". */
  readonly description: string;
  /** Tokens a context. */
  readonly context: number;
  readonly count: number;
  /**
   * Contexts [first, first + count): their ids [count, context], and 1 for each row that is
   * spliced, 0 for one that keeps the model's own activation.
   */
  read(first: number, count: number): Promise<{ readonly ids: Int32Array; readonly spliced: Uint8Array }>;
}

/**
 * The whole sequences of a source that rows of `ranges` are in, at most so many that they hold
 * `most` tokens, evenly spread; spliced are the rows of the ranges. Throws SaettaError for a source
 * without tokens or without sequences: the model needs what stood before a row.
 */
export function contextsOfSource(source: Source, ranges: readonly Range[], most: number): Contexts {
  const { sequence, tokens } = source;
  const where = source.paths.join(", ");
  if (tokens === undefined) throw missing("has no tokens", where);
  if (sequence === undefined) throw missing("is an array of rows, not of sequences", where);
  const found = [...new Set(ranges.flatMap((range) => sequencesIn(range, sequence)))];
  const chosen = evenly(found, Math.max(1, Math.floor(most / sequence)));
  return {
    description: `${chosen.length} contexts of ${sequence} tokens of ${where}`,
    context: sequence,
    count: chosen.length,
    async read(first, count) {
      const ids = new Int32Array(count * sequence);
      const spliced = new Uint8Array(count * sequence);
      for (let i = 0; i < count; i++) {
        const row = chosen[first + i]! * sequence;
        ids.set(await tokens(row, sequence), i * sequence);
        for (let t = 0; t < sequence; t++) spliced[i * sequence + t] = isIn(ranges, row + t) ? 1 : 0;
      }
      return { ids, spliced };
    },
  };
}

/** What of the contexts is not spliced. */
export interface NotSpliced {
  readonly excludeTokens: ExcludeTokens;
  readonly excludePositions?: ExcludePositions;
  readonly startToken: number;
}

/**
 * Contexts of token ids [.., context] in memory. Rows of excluded tokens and positions are not
 * spliced.
 */
export function contextsOfIds(
  ids: Int32Array,
  context: number,
  { excludeTokens, excludePositions = "none", startToken }: NotSpliced,
  description: string,
): Contexts {
  const excluded = excludedIds(excludeTokens, startToken);
  const isOut = (id: number, at: number) =>
    excluded.has(id) || (excludePositions !== "none" && excludePositions.includes(at % context));
  const count = ids.length / context;
  return {
    description: `${count} contexts of ${context} tokens of ${description}`,
    context,
    count,
    read: async (first, contexts) => {
      const part = ids.subarray(first * context, (first + contexts) * context);
      return { ids: part, spliced: Uint8Array.from(part, (id, at) => (isOut(id, at) ? 0 : 1)) };
    },
  };
}

function missing(what: string, where: string): SaettaError {
  return new SaettaError(`${what}, so there is no text to run the model on`, {
    where,
    mend: "name held-out text with --text FILE",
  });
}

function sequencesIn({ first, count }: Range, length: number): number[] {
  const begin = Math.floor(first / length);
  return Array.from({ length: Math.floor((first + count - 1) / length) - begin + 1 }, (_, i) => begin + i);
}

/** At most `most` of the numbers, in their order. */
function evenly(numbers: readonly number[], most: number): number[] {
  if (numbers.length <= most) return [...numbers];
  return Array.from({ length: most }, (_, i) => numbers[Math.floor((i * numbers.length) / most)]!);
}
