/**
 * Documents into contexts of T tokens. Every context begins with the start token, and so does every
 * document; a document that does not fit goes on in the next context. The model attends to the
 * first position whatever stands there, and gives it a norm of several times the others': that it
 * is always the start token lets training leave it out.
 */

/** Collects token ids [contexts, T]. */
export class Packer {
  readonly #context: number;
  readonly #startToken: number;
  #ids: Int32Array;
  #length = 0;

  constructor(context: number, startToken: number) {
    this.#context = context;
    this.#startToken = startToken;
    this.#ids = new Int32Array(64 * context);
  }

  /** Adds a document. One without tokens adds nothing. */
  add(document: Int32Array): void {
    if (document.length === 0) return;
    const start = this.#startToken;
    // A document that spells out its own start token does not get a second one.
    if (document[0] !== start && !(this.#length % this.#context !== 0 && this.#ids[this.#length - 1] === start))
      this.#push(start);
    for (const id of document) {
      if (this.#length % this.#context === 0 && id !== start) this.#push(start);
      this.#push(id);
    }
  }

  /** Whole contexts so far. */
  get contexts(): number {
    return Math.floor(this.#length / this.#context);
  }

  /** Tokens so far, those of a last context that is not full included. */
  get tokens(): number {
    return this.#length;
  }

  /** The ids of the first `contexts` whole contexts. */
  take(contexts: number): Int32Array {
    return this.#ids.subarray(0, Math.min(contexts, this.contexts) * this.#context);
  }

  /** The ids of all tokens: the last context may be shorter than the others. */
  all(): Int32Array {
    return this.#ids.subarray(0, this.#length);
  }

  #push(id: number): void {
    if (this.#length === this.#ids.length) {
      const larger = new Int32Array(2 * this.#ids.length);
      larger.set(this.#ids);
      this.#ids = larger;
    }
    this.#ids[this.#length++] = id;
  }
}
