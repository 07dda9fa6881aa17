/** Says nothing. */
export function unnoted(): void {
  // another rank says it
}

/** What is worth knowing and no error: a line on stderr. */
export function note(text: string): void {
  process.stderr.write(`saetta: note: ${text}\n`);
}
