/** The text around rows: from row numbers through token ids to what a person reads. */

import type { Source } from "../data/source.ts";
import type { Tokenizer } from "../language-model/tokenizer.ts";
import { SaettaError } from "../util/errors.ts";
import type { Feature, RowTokens } from "./features.ts";
import type { FiringLists } from "./firings.ts";

/** One firing in its text. */
export interface Example {
  readonly value: number;
  /** "acts.h5, row 123 (sequence 0, position 123)". */
  readonly where: string;
  readonly before: string;
  readonly token: string;
  readonly after: string;
}

/** Tokens of text on either side. */
const AROUND = 48;
/** Rows that were left out between two that were looked at; larger gaps are not read. */
const SMALL_GAP = 64;

type ReadTokens = NonNullable<Source["tokens"]>;

export function tokensOf(source: Source): ReadTokens {
  if (source.tokens === undefined) {
    throw new SaettaError("has no tokens, so there is no text to show", { where: source.paths.join(", "), mend: "leave out --features" });
  }
  return source.tokens;
}

/** Token and context of each of the rows `numbers`, which ascend. A context ends with its sequence, and where a start token begins another document. */
export async function rowTokens(source: Source, numbers: Float64Array): Promise<RowTokens> {
  const read = tokensOf(source);
  const { sequence = Number.POSITIVE_INFINITY, origin } = source;
  const ids = new Int32Array(numbers.length);
  const contexts = new Uint32Array(numbers.length);
  let context = 0;
  for (let begin = 0; begin < numbers.length; ) {
    let end = begin + 1;
    while (end < numbers.length && numbers[end] - numbers[end - 1] <= SMALL_GAP && end - begin < 65_536) end++;
    const first = numbers[begin];
    const span = await read(first, numbers[end - 1] - first + 1);
    context++;
    for (let i = begin; i < end; i++) {
      const after = i === begin ? first : numbers[i - 1] + 1;
      const skipped = span.subarray(after - first, numbers[i] - first + 1);
      const isOther = Math.floor(numbers[i] / sequence) !== Math.floor((after - 1) / sequence);
      if (i > begin && (isOther || (origin.startToken !== undefined && skipped.includes(origin.startToken)))) context++;
      ids[i] = span[numbers[i] - first];
      contexts[i] = context;
    }
    begin = end;
  }
  return { ids, contexts };
}

/**
 * The strongest firings of a latent, the strongest first: each from another context, and at most two on the same token, so that a few lines show
 * what it does and not where it does it most.
 */
export async function examplesOf(
  { latent }: Feature,
  { offsets, row, value, numbers }: FiringLists,
  { ids, contexts }: RowTokens,
  source: Source,
  tokenizer: Tokenizer,
  count: number,
): Promise<Example[]> {
  const order = Array.from({ length: offsets[latent + 1] - offsets[latent] }, (_, i) => offsets[latent] + i);
  order.sort((a, b) => value[b] - value[a] || a - b);
  const usedContexts = new Set<number>();
  const usedTokens = new Map<string, number>();
  const examples: Example[] = [];
  for (const at of order) {
    if (examples.length === count) break;
    const text = tokenizer.pieces([ids[row[at]]])[0].trim().toLowerCase();
    const times = usedTokens.get(text) ?? 0;
    if (times === 2 || usedContexts.has(contexts[row[at]])) continue;
    usedContexts.add(contexts[row[at]]);
    usedTokens.set(text, times + 1);
    const number = numbers[row[at]];
    examples.push({ value: value[at], where: source.locate(number), ...(await textAround(source, tokenizer, number)) });
  }
  return examples;
}

/** The token of a row, and the text on either side that belongs to the same document. */
async function textAround(source: Source, tokenizer: Tokenizer, number: number): Promise<Pick<Example, "before" | "token" | "after">> {
  const { sequence = source.rows, origin } = source;
  const start = Math.floor(number / sequence) * sequence;
  const first = Math.max(start, number - AROUND);
  const last = Math.min(start + sequence, source.rows, number + AROUND + 1);
  const ids = await tokensOf(source)(first, last - first);
  const at = number - first;
  const isStart = (id: number) => id === origin.startToken;
  const from = at === 0 ? 0 : ids.subarray(0, at).findLastIndex(isStart) + 1;
  const next = ids.subarray(at + 1).findIndex(isStart);
  const pieces = tokenizer.pieces(ids.subarray(from, next < 0 ? ids.length : at + 1 + next));
  return { before: pieces.slice(0, at - from).join(""), token: pieces[at - from], after: pieces.slice(at - from + 1).join("") };
}
