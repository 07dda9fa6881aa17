/** The text that is harvested: plain, as lines of JSON, and compressed. */

import { gzipSync } from "node:zlib";
import { documentsOf } from "../../../src/harvest/text.ts";
import { type FuzzFormat, jsonBoundaries, type Sample } from "../format.ts";

const PLAIN = Buffer.from("A document\nof two lines.\n\nAnother, naïve one: 日本 🦊.\r\n\r\n\n\nThe last");
const LINES = Buffer.from(
  `${JSON.stringify({ text: "one\ntwo", n: [1, { a: null }] })}\n\n${JSON.stringify({ text: "日本 🦊" })}\n`,
);

const sample = (file: string, bytes: Buffer): Sample => ({ name: file, file, bytes });

export const text: FuzzFormat = {
  name: "text",
  samples: () => [
    sample("a.txt", PLAIN),
    sample("a.jsonl", LINES),
    sample("a.txt.gz", gzipSync(PLAIN)),
    sample("a.jsonl.gz", gzipSync(LINES, { level: 0 })),
  ],
  boundaries: (bytes) => [...jsonBoundaries(bytes), 0, 2, 3, 4, 10, bytes.length - 8, bytes.length - 4, bytes.length],
  async read(path) {
    for await (const document of documentsOf(path)) if (document === "") throw new Error("an empty document");
  },
};
