import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";

/** The first characters of a compressed text. */
export function documentsIn(path: string, characters: number): string {
  return gunzipSync(readFileSync(path)).toString("utf8").slice(0, characters);
}
