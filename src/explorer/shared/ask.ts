/**
 * What the page asks about a text and is answered: the only file that both sides read.
 *
 * GET /api/ask
 *     `AskOffer`: whether this server has a language model.
 * GET /api/ask/ID
 *     `AskAbout` of a run.
 * POST /api/ask/ID/text, with a `TextQuestion` as JSON
 *     `TextAnswer`
 * POST /api/ask/ID/steer, with a `SteerQuestion` as JSON
 *     `SteerAnswer`
 *
 * A POST needs the token of /api/token. Anything but 200 has one line of text that says what is
 * wrong.
 */

export interface AskOffer {
  readonly model: string | null;
  /** Ids of autoencoders that are of no run. */
  readonly others: readonly string[];
}

/** What is asked: an autoencoder, the tensor that it reads, and the model that the tensor is in. */
export interface AskAbout {
  readonly name: string;
  readonly model: string;
  readonly tensor: string;
  readonly latents: number;
  readonly width: number;
  /** Tokens per context. */
  readonly context: number;
  readonly limits: AskLimits;
}

/** The most that a question may have. */
export interface AskLimits {
  readonly characters: number;
  readonly tokens: number;
  readonly edits: number;
  /** Tokens of a continuation. */
  readonly continuation: number;
  /** Size of a value that a latent is set to. */
  readonly value: number;
}

export interface TextQuestion {
  readonly text: string;
  /** Latents of which every value is wanted, also where a token has more codes than are sent. */
  readonly latents?: readonly number[];
}

export interface TextAnswer {
  readonly tokens: readonly AskedToken[];
  /** Over the rows that count: sum (x - x̂)² / sum (x - mean)²; null where all are the same. */
  readonly fvu: number | null;
  /** Mean of -ln p(next token), in nats, over the rows that count and have a next token. */
  readonly loss: BeforeAfter | null;
  /** False: of some token only the strongest codes are here. */
  readonly complete: boolean;
}

/** Of the model as it is, and with the reconstruction in the tensor's place. */
export interface BeforeAfter {
  readonly original: number;
  readonly reconstruction: number;
}

export interface AskedToken {
  readonly text: string;
  /** Where it is in its context. */
  readonly position: number;
  /**
   * False: a start token or the like, which training leaves out. It keeps its own activation and
   * has no codes.
   */
  readonly counted: boolean;
  /** |x - x̂| / |x|; null where it is not counted. */
  readonly error: number | null;
  /** Latent and value, the strongest first. */
  readonly codes: readonly (readonly [latent: number, value: number])[];
  /** The likeliest next tokens, of both. */
  readonly next: readonly NextToken[];
  /** Kullback-Leibler divergence of the next token from the original distribution, in nats. */
  readonly divergence: number;
  /** -ln p(next token) of both; null for the last token of a context. */
  readonly loss: BeforeAfter | null;
}

/** A token that may come next: its probability and its logit before and after. */
export interface NextToken {
  readonly text: string;
  readonly before: number;
  readonly after: number;
  readonly logits: readonly [before: number, after: number];
}

export interface SteerQuestion {
  readonly text: string;
  readonly edits: readonly SteerEdit[];
  readonly continuation: Continuation;
}

export type EditKind = "set" | "add" | "remove";

export interface SteerEdit {
  readonly latent: number;
  readonly kind: EditKind;
  /** 0 for "remove". */
  readonly value: number;
  /** Numbers of tokens in the answer's list; "all": every token that counts, new ones too. */
  readonly positions: "all" | readonly number[];
}

export interface Continuation {
  readonly tokens: number;
  readonly seed: number;
  /** 0: always the likeliest token. */
  readonly temperature: number;
}

export interface SteerAnswer {
  readonly tokens: readonly SteeredToken[];
  /** The likeliest tokens after the text: before is without the edits, after is with them. */
  readonly next: readonly NextToken[];
  /** Of that distribution, in nats. */
  readonly divergence: number;
  readonly loss: { readonly without: number; readonly with: number } | null;
  /** The tokens that were drawn; shorter where the model ended the text. */
  readonly continuation: { readonly without: readonly string[]; readonly with: readonly string[] };
}

export interface SteeredToken {
  readonly text: string;
  readonly counted: boolean;
  /** Of each edit's latent: its activation in the model as it is. */
  readonly activations: readonly number[];
  /** Of the next token's distribution, in nats. */
  readonly divergence: number;
}
