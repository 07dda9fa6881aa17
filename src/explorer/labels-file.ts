/**
 * labels.jsonl: names and notes of latents, in a file that only grows. A line is a change:
 *
 *     {"latent":12,"at":"2026-01-31T09:00:00.000Z","name":"days of the week"}
 *     {"latent":12,"at":"2026-01-31T09:01:00.000Z","note":"also months, more weakly"}
 *
 * Of each field of a latent the line with the latest `at` counts, of two of the same time the one
 * with the greater text. So neither the order of lines nor a line that is there twice matters: two
 * files are merged by writing one after the other. What was written stays in the file.
 */

import { constants, type FileHandle, open, stat } from "node:fs/promises";
import { appendTo, refuseWriting } from "../util/atomic-write.ts";
import { readFully } from "../util/bytes.ts";
import { FormatError, hasCode, SaettaError, UsageError } from "../util/errors.ts";
import {
  cleanName,
  cleanNote,
  type Label,
  type LabelChange,
  MOST_NAME,
  MOST_NOTE,
  NO_LABEL,
  SCORINGS,
  type Score,
} from "./shared/labels.ts";

/** A line of the file. `scores` are of `name`, which is in the same line. */
export interface LabelLine extends LabelChange {
  readonly latent: number;
  readonly scores?: Label["scores"] | undefined;
  /** ISO 8601, UTC. */
  readonly at: string;
}

export interface Labels {
  /** By latent; those of which nothing is left are not in it. */
  readonly of: ReadonlyMap<number, Label>;
  /** The latest time of each latent. */
  readonly at: ReadonlyMap<number, string>;
  /** The changes themselves, in the order of the file. */
  readonly lines: readonly LabelLine[];
  /** Lines that are no changes: of a writer that was killed, or of another program. */
  readonly unread: number;
}

const MOST_BYTES = 256 * 1024 * 1024;
/** At most 4 MB, even of the longest notes: one write, which no other writer gets in between. */
const LINES_AT_ONCE = 64;
/** A link in a folder of somebody else may lead anywhere; a pipe would be waited for. */
const FLAGS = constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** The labels of a file; none where it is not there. Throws FormatError where it is no file. */
export async function readLabels(path: string): Promise<Labels> {
  const file = await open(path, constants.O_RDONLY | FLAGS).catch((cause: unknown) => {
    if (hasCode(cause, "ENOENT", "ENOTDIR")) return undefined;
    throw refusal(path, cause);
  });
  if (file === undefined) return parseLabels("");
  try {
    const size = await sizeOf(file, path);
    const bytes = new Uint8Array(size);
    await readFully(file, bytes, 0, path);
    return parseLabels(new TextDecoder().decode(bytes));
  } finally {
    await file.close();
  }
}

/** What the lines of a file say together. */
export function parseLabels(text: string): Labels {
  const fields = new Map<number, { name?: Valued; note?: Valued; scores?: Valued }>();
  const at = new Map<number, string>();
  const lines: LabelLine[] = [];
  let unread = 0;
  for (const line of text.split("\n")) {
    if (line.trim() === "") continue;
    const change = lineOf(line);
    if (change === undefined) {
      unread++;
      continue;
    }
    lines.push(change);
    const known = fields.get(change.latent) ?? {};
    fields.set(change.latent, known);
    if (change.at > (at.get(change.latent) ?? "")) at.set(change.latent, change.at);
    for (const field of ["name", "note"] as const) {
      const value = change[field];
      if (value !== undefined) known[field] = later(known[field], { at: change.at, value, of: "" });
    }
    if (change.scores === undefined) continue;
    const scored = { at: change.at, value: JSON.stringify(change.scores), of: change.name ?? "" };
    known.scores = later(known.scores, scored);
  }
  const of = new Map<number, Label>();
  for (const [latent, { name, note, scores }] of fields) {
    const label = { name: name?.value ?? "", note: note?.value ?? "" };
    if (label.name === "" && label.note === "") continue;
    // A name that was changed since has not been scored.
    const isScored = scores !== undefined && scores.of === label.name;
    of.set(latent, isScored ? { ...label, scores: JSON.parse(scores.value) as Label["scores"] } : label);
  }
  return { of, at, lines, unread };
}

interface Valued {
  readonly at: string;
  readonly value: string;
  /** The name that scores are of. */
  readonly of: string;
}

function later(a: Valued | undefined, b: Valued): Valued {
  if (a === undefined || b.at > a.at) return b;
  return b.at === a.at && b.value > a.value ? b : a;
}

/** A line as a change; undefined for anything else. */
function lineOf(line: string): LabelLine | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { latent, at, name, note, scores } = value as Readonly<Record<string, unknown>>;
  if (!isLatent(latent) || typeof at !== "string" || !/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(at))
    return undefined;
  const text = (field: unknown) => field === undefined || typeof field === "string";
  if (!text(name) || !text(note)) return undefined;
  return {
    latent,
    at,
    ...(typeof name === "string" && { name: cleanName(name).slice(0, MOST_NAME) }),
    ...(typeof note === "string" && { note: cleanNote(note).slice(0, MOST_NOTE) }),
    ...(isScores(scores) && { scores }),
  };
}

const isLatent = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && value < 2 ** 32;

function isScores(value: unknown): value is Label["scores"] {
  if (typeof value !== "object" || value === null) return false;
  return Object.entries(value).every(
    ([scoring, score]) => SCORINGS.some((each) => each === scoring) && isScore(score as Partial<Score> | null),
  );
}

function isScore(score: Partial<Score> | null): boolean {
  const { accuracy, precision, recall, f1, passages } = score ?? {};
  return [accuracy, precision, recall, f1, passages].every((each) => typeof each === "number" && Number.isFinite(each));
}

/** A change that somebody asks for: `latents` is how many there are. Throws UsageError. */
export function checkChange(latent: unknown, change: LabelChange, latents: number): LabelChange & { latent: number } {
  if (!isLatent(latent) || latent >= latents)
    throw new UsageError(`latent must be a whole number from 0 to ${latents - 1}, but is ${shown(latent)}`);
  const name = change.name === undefined ? undefined : cleanName(change.name);
  const note = change.note === undefined ? undefined : cleanNote(change.note);
  if ((name?.length ?? 0) > MOST_NAME) throw new UsageError(`a name has at most ${MOST_NAME} characters`);
  if ((note?.length ?? 0) > MOST_NOTE) throw new UsageError(`a note has at most ${MOST_NOTE} characters`);
  return { latent, ...(name !== undefined && { name }), ...(note !== undefined && { note }) };
}

const shown = (value: unknown) => String(JSON.stringify(value) ?? value).slice(0, 40);

/**
 * A time for changes that come after all that is known of their latents, also where a clock that
 * was ahead wrote these.
 */
export function timeAfter({ at }: Labels, latents: readonly number[], now: number): string {
  const latest = latents.reduce((most, latent) => Math.max(most, Date.parse(at.get(latent) ?? "") || 0), 0);
  return new Date(Math.max(now, latest + 1)).toISOString();
}

/**
 * Appends changes, in one write, and syncs. Writers of several processes may do so at once: the
 * system appends each write of 64 lines as a whole. Throws SaettaError when the file cannot be
 * written.
 */
export async function appendLabels(path: string, lines: readonly LabelLine[]): Promise<void> {
  if (lines.length === 0) return;
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_APPEND | FLAGS;
  const file = await open(path, flags, 0o666).catch((cause: unknown) => {
    throw refusal(path, cause);
  });
  try {
    const size = await sizeOf(file, path);
    const last = new Uint8Array(Math.min(1, size));
    await readFully(file, last, size - last.length, path);
    // A writer that was killed, or found the disk full, may have left a part of a line.
    const isWhole = size === 0 || last[0] === 10;
    const texts = lines.map((line) => `${JSON.stringify(line)}\n`);
    if (size + texts.reduce((sum, text) => sum + Buffer.byteLength(text), 1) > MOST_BYTES)
      throw new SaettaError(`would have more than ${MOST_BYTES} bytes`, { where: path, mend: "write fewer labels" });
    for (let first = 0; first < texts.length; first += LINES_AT_ONCE) {
      const text = texts.slice(first, first + LINES_AT_ONCE).join("");
      await appendTo(file, Buffer.from(first === 0 && !isWhole ? `\n${text}` : text), path);
    }
    await file.sync().catch((cause: unknown) => refuseWriting(path, cause));
  } finally {
    await file.close();
  }
}

async function sizeOf(file: FileHandle, path: string): Promise<number> {
  const found = await file.stat();
  if (!found.isFile()) throw new FormatError("is not a file", { where: path, mend: "move it away" });
  if (found.size <= MOST_BYTES) return found.size;
  throw new FormatError(`has ${found.size} bytes, more than the ${MOST_BYTES} of labels`, { where: path });
}

function refusal(path: string, cause: unknown): SaettaError {
  if (hasCode(cause, "ELOOP"))
    return new SaettaError("is a link, which is not followed", {
      where: path,
      mend: "put the file in its place",
      cause,
    });
  if (hasCode(cause, "ENXIO")) return new FormatError("is not a file", { where: path, mend: "move it away", cause });
  return new SaettaError("cannot be opened", { where: path, mend: "check who may read and write it", cause });
}

/** The labels of a file as they are now: read again when it has changed. */
export class LabelsNow {
  readonly path: string;
  #version: string | undefined;
  #labels: Promise<Labels> = Promise.resolve(parseLabels(""));

  constructor(path: string) {
    this.path = path;
  }

  async read(): Promise<Labels> {
    const found = await stat(this.path).catch(() => undefined);
    const version = found && `${found.ino} ${found.size} ${found.mtimeMs}`;
    if (version !== this.#version) {
      this.#version = version;
      this.#labels = readLabels(this.path);
    }
    return this.#labels;
  }

  /** Changes one label, and resolves to it as it is then. */
  async change(change: LabelChange & { readonly latent: number }, now: number): Promise<Label> {
    const before = await readLabels(this.path);
    await appendLabels(this.path, [{ ...change, at: timeAfter(before, [change.latent], now) }]);
    return (await this.read()).of.get(change.latent) ?? NO_LABEL;
  }
}
