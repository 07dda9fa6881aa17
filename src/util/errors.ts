/**
 * The one family of errors that Saetta raises on purpose. Every message is one line that says where
 * it happened, what is wrong and how to mend it; the command line prints it without a stack trace.
 * Anything else that reaches the top is a bug and says so.
 */

export interface Context {
  /** Where: a path, with row or byte offset where there is one. */
  readonly where?: string;
  /** How to mend it, in the imperative. */
  readonly mend?: string;
  /** What was caught, kept for `SAETTA_DEBUG=1`. */
  readonly cause?: unknown;
}

/** Something in the world is not as it must be: a file, a device, memory. Exit code 1. */
export class SaettaError extends Error {
  override readonly name: string = "SaettaError";
  readonly exitCode: number = 1;
  readonly where: string | undefined;
  readonly mend: string | undefined;

  constructor(what: string, context: Context = {}) {
    const where = context.where === undefined || context.where === "" ? "" : `${context.where}: `;
    const mend = context.mend === undefined ? "" : `; ${context.mend}`;
    super(
      oneLine(`${where}${shortened(oneLine(shortened(what)))}${mend}`),
      context.cause === undefined ? {} : { cause: context.cause },
    );
    this.where = context.where;
    this.mend = context.mend;
  }
}

/** What was asked for makes no sense: a flag, a value, a combination of them. Exit code 2. */
export class UsageError extends SaettaError {
  override readonly name = "UsageError";
  override readonly exitCode = 2;
}

/** A file is not what it claims to be, or is damaged. Exit code 1. */
export class FormatError extends SaettaError {
  override readonly name = "FormatError";
}

/**
 * The message of anything that was thrown, on one line; an error of the operating system in plain
 * words.
 */
export function messageOf(thrown: unknown): string {
  return systemWords(thrown) ?? oneLine(thrown instanceof Error ? thrown.message : String(thrown));
}

/**
 * What an error of the operating system says, and the path it is about. Undefined for any other
 * error.
 */
export function systemError(thrown: unknown): { readonly what: string; readonly path: string | undefined } | undefined {
  const what = systemWords(thrown);
  if (what === undefined) return undefined;
  const { path, dest } = thrown as { readonly path?: unknown; readonly dest?: unknown };
  const named = [dest, path].find((each): each is string => typeof each === "string");
  return { what, path: named === undefined ? undefined : oneLine(named) };
}

const SYSTEM_WORDS: Readonly<Record<string, string>> = {
  ENOENT: "no such file or folder",
  ENOTDIR: "a part of the path is a file, not a folder",
  EISDIR: "it is a folder",
  EEXIST: "it exists already",
  ENOTEMPTY: "the folder is not empty",
  EACCES: "permission denied",
  EPERM: "not permitted",
  EROFS: "the disk is read-only",
  ENOSPC: "no space left on the disk",
  EDQUOT: "the disk quota is used up",
  EFBIG: "too large for this disk",
  EIO: "the disk reports an error",
  EMFILE: "too many open files",
  ENFILE: "too many open files on this machine",
  ENOMEM: "out of memory",
  ENAMETOOLONG: "the name is too long",
  ELOOP: "too many soft links",
  EXDEV: "it is on another disk",
  EBUSY: "it is in use",
  ETXTBSY: "it is in use",
  EINVAL: "the system refuses it",
  ENXIO: "no such device",
  ENODEV: "no such device",
  ESTALE: "the network disk lost the file",
  EADDRINUSE: "the port is taken",
  EADDRNOTAVAIL: "this machine has no such address",
  ECONNREFUSED: "nobody listens there",
  ECONNRESET: "the other side closed the connection",
  ETIMEDOUT: "no answer in time",
  EHOSTUNREACH: "the host cannot be reached",
  ENETUNREACH: "the network cannot be reached",
  ENOTFOUND: "no such host",
  EAI_AGAIN: "the name of the host cannot be looked up",
};

/**
 * Errors of Node's own calls have a code, the number or the call behind it, and a message with
 * both.
 */
function systemWords(thrown: unknown): string | undefined {
  if (!(thrown instanceof Error) || thrown instanceof SaettaError) return undefined;
  const { code, syscall } = thrown as Error & { readonly code?: unknown; readonly syscall?: unknown };
  if (typeof code !== "string" || !/^E[A-Z0-9_]+$/.test(code)) return undefined;
  if (syscall === undefined && !thrown.message.startsWith(`${code}:`)) return undefined;
  const said = /^E[A-Z0-9_]+: ([^,]+)/.exec(thrown.message)?.[1];
  return SYSTEM_WORDS[code] ?? (said === undefined ? `the system refuses it (${code})` : oneLine(said));
}

/** True for an error of the operating system with the given code, such as "ENOENT". */
export function hasCode(thrown: unknown, ...codes: readonly string[]): boolean {
  const code = thrown instanceof Error ? (thrown as Error & { readonly code?: string }).code : undefined;
  return code !== undefined && codes.includes(code);
}

/** Names and values out of files end up in messages: what a terminal would obey is spelled out. */
function oneLine(text: string): string {
  return text
    .replace(/\s*[\r\n]+\s*/g, " ")
    .trim()
    .replace(CONTROLS, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** C0, DEL, C1, the separators of lines and paragraphs, and what turns the direction of writing. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

/** Longer than anything that is said on purpose. */
const MAX_WHAT = 1000;

function shortened(what: string): string {
  return what.length <= MAX_WHAT ? what : `${what.slice(0, MAX_WHAT - 100)} ... ${what.slice(-90)}`;
}
