/**
 * Files that hold the same rows: a name given twice, a link, a copy. Kept, their rows would be both
 * trained on and held out.
 */

import { stat } from "node:fs/promises";
import { bytesPerRow, type Source } from "./source.ts";

/**
 * The sources without those that repeat an earlier one, and a note for each that is left out. A
 * repeat is the same file on disk (named twice, or by a link), or has the same rows, element by
 * element. Full comparisons are made only of sources whose first, middle and last rows agree. The
 * caller closes what is left out.
 */
export async function repeatsOf(sources: readonly Source[]): Promise<{
  readonly kept: readonly Source[];
  readonly repeated: readonly Source[];
  readonly notes: readonly string[];
}> {
  const kept: Source[] = [];
  const repeated: Source[] = [];
  const notes: string[] = [];
  const files = new Map<string, Source>();
  const rows = new Map<string, Source[]>();
  for (const source of sources.length > 1 ? sources : []) {
    const file = await identityOf(source);
    const before = file === undefined ? undefined : files.get(file);
    const signature = before === undefined ? await signatureOf(source) : undefined;
    const alike = signature === undefined ? [] : (rows.get(signature) ?? []);
    const same = before ?? (await firstEqual(source, alike));
    if (same !== undefined) {
      repeated.push(source);
      notes.push(noteOf(source, same, before !== undefined));
      continue;
    }
    kept.push(source);
    if (file !== undefined) files.set(file, source);
    if (signature !== undefined) rows.set(signature, [...alike, source]);
  }
  return { kept: sources.length > 1 ? kept : sources, repeated, notes };
}

function noteOf({ paths }: Source, { paths: before }: Source, linked: boolean): string {
  const [name, other] = [paths.join(", "), before.join(", ")];
  const what =
    name === other
      ? `${name} is named twice`
      : linked
        ? `${name} and ${other} are the same file`
        : `${name} holds the same rows as ${other}`;
  return `${what}: it is read once, or rows would be both trained on and held out; --epochs 2 trains on all rows twice`;
}

/** The file on disk, whatever it is called. */
async function identityOf({ paths }: Source): Promise<string | undefined> {
  const [path, ...more] = paths;
  if (path === undefined || more.length > 0) return undefined;
  const { dev, ino } = await stat(path, { bigint: true });
  return `${dev}.${ino}`;
}

/** Shape and three rows; undefined where those rows are all zero, which tells nothing. */
async function signatureOf(source: Source): Promise<string | undefined> {
  const { rows, dIn, dtype } = source;
  const parts: Uint8Array[] = [];
  for (const row of [0, Math.floor(rows / 2), rows - 1]) {
    const bytes = new Uint8Array(bytesPerRow(source));
    await source.read(row, 1, bytes);
    parts.push(bytes);
  }
  if (parts.every((part) => part.every((byte) => byte === 0))) return undefined;
  return [rows, dIn, dtype, ...parts.map((part) => Buffer.from(part).toString("base64"))].join(" ");
}

async function firstEqual(source: Source, alike: readonly Source[]): Promise<Source | undefined> {
  for (const other of alike) if (await sameRows(source, other)) return other;
  return undefined;
}

const BYTES_PER_READ = 4 * 2 ** 20;

/** Whether sources of one shape and dtype have the same rows, bit by bit. */
export async function sameRows(a: Source, b: Source): Promise<boolean> {
  const rowBytes = bytesPerRow(a);
  const piece = Math.max(1, Math.floor(BYTES_PER_READ / rowBytes));
  for (let first = 0; first < a.rows; first += piece) {
    const count = Math.min(piece, a.rows - first);
    const [one, other] = [Buffer.alloc(count * rowBytes), Buffer.alloc(count * rowBytes)];
    await Promise.all([a.read(first, count, one), b.read(first, count, other)]);
    if (!one.equals(other)) return false;
  }
  return true;
}
