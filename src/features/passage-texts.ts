/** The text of all passages, each token once where passages overlap. */

import type { Source } from "../data/source.ts";
import type { Tokenizer } from "../language-model/tokenizer.ts";
import { type Span, spanAround, TokenBlocks } from "./row-text.ts";

/** Rows that are turned into text at once. */
const AT_ONCE = 16_384;

export class PassageTexts {
  readonly #source: Source;
  readonly #tokens: TokenBlocks;
  readonly #firsts: number[] = [];
  readonly #ends: number[] = [];
  /** Rows [begin[i], end[i]) without overlaps, in order, and the number of the first one's text. */
  #begin = new Float64Array(0);
  #end = new Float64Array(0);
  #text = new Float64Array(0);

  constructor(source: Source) {
    this.#source = source;
    this.#tokens = new TokenBlocks(source);
  }

  /** The rows around a firing that belong to its document. */
  spanOf(number: number): Promise<Span> {
    return spanAround(this.#source, this.#tokens, number);
  }

  /** The text of these rows will be there after `join`. */
  async add(number: number): Promise<void> {
    const { first, end } = await this.spanOf(number);
    this.#firsts.push(first);
    this.#ends.push(end);
  }

  /** Ends the adding: rows that passages share become one. */
  join(): void {
    const begins = Float64Array.from(this.#firsts).sort();
    const ends = Float64Array.from(this.#ends).sort();
    // In order of their begins the i-th begin and the i-th end bound the same stretch of covered
    // rows as the passages themselves.
    const [begin, end, text]: [number[], number[], number[]] = [[], [], []];
    let total = 0;
    for (let i = 0; i < begins.length; ) {
      const first = begins[i];
      while (i + 1 < begins.length && begins[i + 1] <= ends[i]) i++;
      begin.push(first);
      end.push(ends[i]);
      text.push(total);
      total += ends[i] - first;
      i++;
    }
    [this.#begin, this.#end, this.#text] = [begin, end, text].map((list) => Float64Array.from(list));
  }

  /** The number of the text of a row that was added. */
  textOf(number: number): number {
    let [low, high] = [0, this.#begin.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#begin[middle] <= number) low = middle + 1;
      else high = middle;
    }
    return this.#text[low - 1] + number - this.#begin[low - 1];
  }

  /** The texts by number, in pieces of any length. Without a tokenizer a token's text is its id. */
  async *texts(tokenizer: Tokenizer | undefined): AsyncGenerator<string[]> {
    for (let i = 0; i < this.#begin.length; i++) {
      for (let first = this.#begin[i]; first < this.#end[i]; first += AT_ONCE) {
        const ids = await this.#tokens.read(first, Math.min(this.#end[i], first + AT_ONCE));
        yield tokenizer === undefined ? Array.from(ids, (id) => `⟨${id}⟩`) : tokenizer.pieces(ids);
      }
    }
  }
}
