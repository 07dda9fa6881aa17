/**
 * manifest.json of a checkpoint folder: size and SHA-256 of every other file in it, and, as its
 * last line, the SHA-256 of all of its own bytes before that line. What is after those bytes is
 * fixed, so that no byte of the folder can change unnoticed.
 */

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { MANIFEST } from "../run-files/names.ts";
import { FormatError } from "../util/errors.ts";
import { Fields, parseJson, readBounded } from "../util/json.ts";

/** What manifest.json says of one file. */
export interface ManifestEntry {
  readonly size: number;
  readonly sha256: string;
}

const VERSION = 1;
const MAX_BYTES = 1024 * 1024;
/** Of a file that is hashed, read at once. */
const PIECE = 4 * 1024 * 1024;
const MEND = "use an earlier checkpoint";
/** A file in the folder itself, whatever the system: no path, no NUL, not too long. */
const PLAIN_NAME = /^\w[\w.-]{0,99}$/;
const TAIL = /,\n {2}"sha256": "([0-9a-f]{64})"\n\}\n$/;

const sha256 = (bytes: string | Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** The text of a manifest that lists `files`. */
export function manifestText(files: Readonly<Record<string, ManifestEntry>>): string {
  const listed = JSON.stringify({ format_version: VERSION, files }, undefined, 2).replace(/\n\}$/, "");
  return `${listed},\n  "sha256": "${sha256(listed)}"\n}\n`;
}

/** What a manifest says of the file at `path`, from what is on the disk now. */
export async function entryOf(path: string): Promise<ManifestEntry> {
  const hash = createHash("sha256");
  let size = 0;
  for await (const piece of createReadStream(path, { highWaterMark: PIECE }) as AsyncIterable<Uint8Array>) {
    hash.update(piece);
    size += piece.byteLength;
  }
  return { size, sha256: hash.digest("hex") };
}

/**
 * What the manifest of the folder lists. FormatError when it is missing, damaged or makes no sense.
 */
export async function readManifest(folder: string): Promise<ReadonlyMap<string, ManifestEntry>> {
  const where = join(folder, MANIFEST);
  const bytes = await readBounded(where, MAX_BYTES, "a manifest", MEND);
  const text = Buffer.from(bytes).toString("latin1");
  const tail = TAIL.exec(text);
  if (tail === null || sha256(bytes.subarray(0, tail.index)) !== tail[1]) {
    throw new FormatError("damaged: its bytes are not those that were saved (its own SHA-256 differs)", {
      where,
      mend: MEND,
    });
  }
  const manifest = new Fields(parseJson(bytes, where), MANIFEST, where);
  const version = manifest.integer("format_version", 1);
  if (version > VERSION)
    throw new FormatError(`format_version is ${version}; this version of Saetta reads up to ${VERSION}`, { where });
  const listed = manifest.fields("files");
  return new Map(
    Object.keys(listed.object).map((name) => {
      if (!PLAIN_NAME.test(name)) {
        throw new FormatError(`lists ${JSON.stringify(name)}, which is no plain file name`, { where });
      }
      const entry = listed.fields(name);
      return [name, { size: entry.integer("size"), sha256: entry.string("sha256") }];
    }),
  );
}
