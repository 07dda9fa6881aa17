/** Ctrl-C, SIGTERM and Slurm's SIGUSR1. */

/** The exit code after each: what was asked for by SIGUSR1 is done when the work is saved. */
export const EXIT_CODES = { SIGINT: 130, SIGTERM: 143, SIGUSR1: 0 } as const;

export type EndingSignal = keyof typeof EXIT_CODES;

/** Calls `heard` at each of the signals, which then do not end the process; until what is returned is called. */
export function onSignals(heard: (name: EndingSignal) => void): () => void {
  const names = Object.keys(EXIT_CODES) as EndingSignal[];
  // Node calls a listener with the name of the signal.
  for (const name of names) process.on(name, heard);
  return () => {
    for (const name of names) process.off(name, heard);
  };
}
