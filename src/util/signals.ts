/** Ctrl-C, SIGTERM and Slurm's SIGUSR1. */

/** The exit code after each: what was asked for by SIGUSR1 is done when the work is saved. */
export const EXIT_CODES = { SIGINT: 130, SIGTERM: 143, SIGUSR1: 0 } as const;

export type EndingSignal = keyof typeof EXIT_CODES;

const NAMES = Object.keys(EXIT_CODES) as EndingSignal[];

/** Signals that came before anybody listened; undefined where they are not held. */
let held: EndingSignal[] | undefined;

/**
 * Holds the signals from now on for the first caller of `onSignals`: until then a program still
 * loads its modules, and Node would end at SIGTERM and take SIGUSR1 for a call of its debugger. A
 * second Ctrl-C or SIGTERM ends the process at once. SIGUSR1 never reaches the debugger again; one
 * that did so before is held, too.
 */
export function holdSignals(): void {
  if (held !== undefined) return;
  held = [];
  for (const name of NAMES) process.on(name, hold);
  if (closeDebugger()) held.push("SIGUSR1");
}

/**
 * Whether Node opened its debugger at a SIGUSR1 that came before `holdSignals`; the debugger is
 * closed again. Node opens it some time after the signal, so this is called more than once.
 */
function closeDebugger(): boolean {
  if (!process.features.inspector || debuggerAsked(process.execArgv, process.env.NODE_OPTIONS)) return false;
  const { url, close } = process.getBuiltinModule("node:inspector");
  if (url() === undefined) return false;
  close();
  return true;
}

/**
 * Whether Node's options open the debugger, or load modules before the program, which may open it.
 */
export function debuggerAsked(execArgv: readonly string[], nodeOptions = ""): boolean {
  const opening = /^(--inspect(-brk|-wait)?|--(experimental-)?(require|import|loader)|-r)(=|$)/;
  return [...execArgv, ...nodeOptions.split(/[\s"]+/)].some((word) => opening.test(word));
}

function hold(name: EndingSignal): void {
  if (name !== "SIGUSR1" && held?.some((each) => each !== "SIGUSR1")) process.exit(EXIT_CODES[name]);
  held?.push(name);
}

/**
 * Calls `heard` at each of the signals, which then do not end the process; until what is returned
 * is called. Those that were held are heard first.
 */
export function onSignals(heard: (name: EndingSignal) => void): () => void {
  // Node calls a listener with the name of the signal.
  for (const name of NAMES) process.on(name, heard);
  const before = held ?? [];
  if (held !== undefined && closeDebugger()) before.push("SIGUSR1");
  held = undefined;
  for (const name of NAMES) if (name !== "SIGUSR1") process.off(name, hold);
  for (const name of before) heard(name);
  return () => {
    for (const name of NAMES) process.off(name, heard);
  };
}
