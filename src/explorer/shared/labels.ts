/** Names and notes that people or language models give to latents. */

/**
 * How well a name tells a latent's text from other text, as EleutherAI's delphi has it: balanced
 * accuracy of a reader that is given the name and passages, half of which make the latent fire.
 */
export interface Score {
  /** (share of the right answers where it fires + the same where it does not) / 2. */
  readonly accuracy: number;
  readonly precision: number;
  readonly recall: number;
  readonly f1: number;
  /** Passages that were answered. */
  readonly passages: number;
}

/** The two ways to ask: whether a passage has the pattern; whether the marked tokens have it. */
export const SCORINGS = ["detection", "fuzzing"] as const;
export type Scoring = (typeof SCORINGS)[number];

/** What is known of one latent; "" where nothing was written. */
export interface Label {
  readonly name: string;
  readonly note: string;
  /** Of the name as it is; absent where it has none. */
  readonly scores?: Readonly<Partial<Record<Scoring, Score>>>;
}

/** In a page: JSON of [latent, Label] pairs, deflated. A features file has none. */
export const LABELS_CHUNK = "labels";

export const NO_LABEL: Label = { name: "", note: "" };

/** Characters of a name and of a note. */
export const MOST_NAME = 200;
export const MOST_NOTE = 10_000;

/** What is changed of a label; what is absent stays. */
export interface LabelChange {
  readonly name?: string | undefined;
  readonly note?: string | undefined;
}

/** A half of a character, which no file can hold. */
const HALF = /\p{Surrogate}/gu;

/** A name on one line, a note on several: without spaces at the ends and halves of characters. */
export function cleanName(text: string): string {
  return text.replace(HALF, "\ufffd").replace(/\s+/g, " ").trim();
}

export function cleanNote(text: string): string {
  return text.replace(HALF, "\ufffd").replaceAll("\r\n", "\n").trim();
}
