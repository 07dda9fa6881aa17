/** What can be completed of a command; everywhere else files are. */
export interface Completed {
  readonly name: string;
  readonly summary: string;
  readonly flags: readonly CompletedFlag[];
  /** The words that its first argument takes. */
  readonly words: readonly string[];
}

export interface CompletedFlag {
  readonly flag: string;
  readonly summary: string;
  readonly takesValue: boolean;
  /** The words that its value may be. */
  readonly words: readonly string[];
}
