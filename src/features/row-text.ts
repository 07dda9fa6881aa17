/** The text around rows: from row numbers through token ids to what a person reads. */

import type { Source } from "../data/source.ts";
import type { Tokenizer } from "../language-model/tokenizer.ts";
import { SaettaError } from "../util/errors.ts";
import type { SeenRows } from "./firings.ts";
import { AFTER, BEFORE, type KeptFiring } from "./kept-firings.ts";

/** Rows that were left out between two that were looked at; larger gaps are not read. */
const SMALL_GAP = 64;
const MOST_AT_ONCE = 65_536;

type ReadTokens = NonNullable<Source["tokens"]>;

export function tokensOf(source: Source): ReadTokens {
  if (source.tokens === undefined) {
    throw new SaettaError("has no tokens, so there is no text to show", {
      where: source.paths.join(", "),
      mend: "leave out --features",
    });
  }
  return source.tokens;
}

/** Asks `of` once a token: a text has many more rows than a vocabulary tokens. */
function remembered<T>(of: (token: number) => T): (token: number) => T {
  const known = new Map<number, T>();
  return (token) => {
    const found = known.get(token) ?? of(token);
    known.set(token, found);
    return found;
  };
}

/** The text of single tokens, remembered. */
export function textOfTokens(tokenizer: Tokenizer): (token: number) => string {
  return remembered((token) => tokenizer.pieces([token])[0]);
}

/** What is known of rows, whose numbers ascend from call to call. */
export class RowsInText {
  readonly #source: Source;
  readonly #kinds = new Map<string, number>();
  readonly #kindOf: (token: number) => number;
  readonly #formOf: ((token: number) => Form) | undefined;
  #context = 0;
  #last: number | undefined;

  /** Without `textOf` no word is known to be one, and each token is a kind of its own. */
  constructor(source: Source, textOf?: (token: number) => string) {
    this.#source = source;
    this.#kindOf = textOf === undefined ? (token) => token : remembered((token) => this.#kind(token, textOf(token)));
    this.#formOf = textOf && remembered((token) => readForm(textOf(token)));
  }

  /**
   * Token and context of each of the rows. A context ends with its sequence, where a start token
   * begins another document, and where many rows were left out.
   */
  async next(numbers: Float64Array): Promise<SeenRows> {
    const { tokens: read, sequence, origin } = this.#source;
    const rows = numbers.length;
    const ids = read && new Int32Array(rows);
    const contexts = new Uint32Array(rows);
    // Where nothing tells which rows belong together, none do.
    const length = sequence ?? (read === undefined ? 1 : Number.POSITIVE_INFINITY);
    for (let begin = 0; begin < rows; ) {
      let end = begin + 1;
      while (end < rows && numbers[end] - numbers[end - 1] <= SMALL_GAP && end - begin < MOST_AT_ONCE) end++;
      const isNear = this.#last !== undefined && numbers[begin] - this.#last <= SMALL_GAP;
      const first = isNear ? this.#last! + 1 : numbers[begin];
      const span = await read?.(first, numbers[end - 1] - first + 1);
      if (!isNear) this.#context++;
      for (let i = begin; i < end; i++) {
        const after = i > begin || isNear ? this.#last! + 1 : numbers[i];
        const skipped = span?.subarray(after - first, numbers[i] - first + 1);
        const isOther = Math.floor(numbers[i] / length) !== Math.floor((after - 1) / length);
        const isBegun = origin.startToken !== undefined && skipped?.includes(origin.startToken);
        if ((i > begin || isNear) && (isOther || isBegun)) this.#context++;
        if (ids && span) ids[i] = span[numbers[i] - first];
        contexts[i] = this.#context;
        this.#last = numbers[i];
      }
      begin = end;
    }
    const words = ids && this.#formOf ? wholeWords(ids, contexts, this.#formOf) : new Uint8Array(rows);
    return { numbers, ids, kinds: ids?.map((id) => this.#kindOf(id)), contexts, words };
  }

  #kind(token: number, text: string): number {
    const key = text.trim().toLowerCase() || text;
    const kind = this.#kinds.get(key) ?? token;
    this.#kinds.set(key, kind);
    return kind;
  }
}

/** How a token stands among letters and digits. */
interface Form {
  readonly starts: boolean;
  readonly ends: boolean;
  /** At least two of them and, but for spaces around, nothing else. */
  readonly isWord: boolean;
}

function readForm(text: string): Form {
  return {
    starts: /^[\p{L}\p{N}]/u.test(text),
    ends: /[\p{L}\p{N}]$/u.test(text),
    isWord: /^[\p{L}\p{N}]{2,}$/u.test(text.trim()),
  };
}

/** 1 for each row whose token is a whole word, going by the tokens around it. */
function wholeWords(ids: Int32Array, contexts: Uint32Array, formOf: (token: number) => Form): Uint8Array {
  const words = new Uint8Array(contexts.length);
  const forms = Array.from(ids, formOf);
  for (const [row, { starts, ends, isWord }] of forms.entries()) {
    const goesOn = row > 0 && contexts[row - 1] === contexts[row] && starts && forms[row - 1].ends;
    const isCut = row + 1 < ids.length && contexts[row + 1] === contexts[row] && ends && forms[row + 1].starts;
    words[row] = isWord && !goesOn && !isCut ? 1 : 0;
  }
  return words;
}

/** Rows [first, end) of the source around a firing that belong to the same document. */
export interface Span {
  readonly first: number;
  readonly end: number;
}

/** Token ids of any rows, read in blocks that are kept: 4 bytes a row of what is looked at. */
export class TokenBlocks {
  readonly #source: Source;
  readonly #blocks = new Map<number, Int32Array>();

  constructor(source: Source) {
    this.#source = source;
  }

  async read(first: number, end: number): Promise<Int32Array> {
    const ids = new Int32Array(end - first);
    for (let at = first; at < end; ) {
      const block = Math.floor(at / MOST_AT_ONCE);
      const start = block * MOST_AT_ONCE;
      const size = Math.min(MOST_AT_ONCE, this.#source.rows - start);
      const held = this.#blocks.get(block) ?? (await tokensOf(this.#source)(start, size));
      this.#blocks.set(block, held);
      const part = held.subarray(at - start, Math.min(size, end - start));
      ids.set(part, at - first);
      at += part.length;
    }
    return ids;
  }
}

/**
 * The rows around row `number`, at most `before` and `after`, up to where its sequence or document
 * begins and ends.
 */
export async function spanAround(
  source: Source,
  tokens: TokenBlocks,
  number: number,
  before = BEFORE,
  after = AFTER,
): Promise<Span> {
  const { sequence = source.rows, origin } = source;
  const start = Math.floor(number / sequence) * sequence;
  const first = Math.max(start, number - before);
  const end = Math.min(start + sequence, source.rows, number + after + 1);
  const ids = await tokens.read(first, end);
  const at = number - first;
  const isStart = (id: number) => id === origin.startToken;
  const next = ids.subarray(at + 1).findIndex(isStart);
  return {
    first: first + (at === 0 ? 0 : ids.subarray(0, at).findLastIndex(isStart) + 1),
    end: next < 0 ? end : first + at + 1 + next,
  };
}

/** One firing in its text. */
export interface Example {
  readonly value: number;
  /** "acts.h5, row 123 (sequence 0, position 123)". */
  readonly where: string;
  readonly before: string;
  readonly token: string;
  readonly after: string;
}

/** Tokens of text on either side of an example. */
const AROUND = 48;

/** The first `count` of the firings, in their text. */
export async function examplesOf(
  firings: readonly KeptFiring[],
  source: Source,
  tokenizer: Tokenizer,
  count: number,
): Promise<Example[]> {
  const tokens = new TokenBlocks(source);
  const examples: Example[] = [];
  for (const { value, number } of firings.slice(0, count)) {
    const { first, end } = await spanAround(source, tokens, number, AROUND, AROUND);
    const pieces = tokenizer.pieces(await tokens.read(first, end));
    const at = number - first;
    // A token that is the first part of a character is shown by the character, which the token of
    // its last part has.
    const shown = Math.max(
      at,
      pieces.findIndex((piece, i) => i >= at && piece !== ""),
    );
    const [before, token, after] = [pieces.slice(0, at), pieces[shown], pieces.slice(shown + 1)];
    examples.push({ value, where: source.locate(number), before: before.join(""), token, after: after.join("") });
  }
  return examples;
}
