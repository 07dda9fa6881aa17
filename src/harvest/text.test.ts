import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, it } from "vitest";
import { FormatError, SaettaError } from "../util/errors.ts";
import { checkText, documentsOf, MAX_DOCUMENT } from "./text.ts";

const folder = mkdtempSync(join(tmpdir(), "saetta-text-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function read(name: string, content: string | Uint8Array): Promise<string[]> {
  const path = join(folder, name);
  writeFileSync(path, content);
  const documents: string[] = [];
  for await (const document of documentsOf(path)) documents.push(document);
  return documents;
}

describe("documentsOf", () => {
  it("splits at blank lines, whatever the ends of lines, and gives no empty document", async () => {
    expect(await read("a.txt", "\n\none\ntwo\n\n \t\nthree\n\n\n")).toEqual(["one\ntwo", "three"]);
    expect(await read("b.txt", "\ufeffone\r\ntwo\r\n\r\nthree")).toEqual(["one\ntwo", "three"]);
    expect(await read("c.txt", "")).toEqual([]);
  });

  it("reads characters that lie across two reads of the file, compressed or not", async () => {
    const text = `${"日本🦊é".repeat(60_000)}\n\nend`;
    expect(await read("long.txt", `x${text}`)).toEqual([`x${"日本🦊é".repeat(60_000)}`, "end"]);
    expect(await read("long.txt.gz", gzipSync(text))).toEqual(["日本🦊é".repeat(60_000), "end"]);
  });

  it("reads the text of each line of a .jsonl file", async () => {
    expect(await read("a.jsonl", '{"text":"one\\n\\ntwo","id":1}\n\n{"text":"three"}\n')).toEqual([
      "one\n\ntwo",
      "three",
    ]);
    await expect(read("b.jsonl", '{"text":"one"}\n{"txt":"two"}')).rejects.toThrow(
      /b\.jsonl, line 2: the line has no "text"/,
    );
    await expect(read("c.jsonl", "{")).rejects.toThrow(/c\.jsonl, line 1: not valid JSON/);
  });

  it("refuses what is not UTF-8, a damaged gzip file, and documents without end", async () => {
    await expect(read("latin.txt", Buffer.from([0x63, 0x61, 0x66, 0xe9, 0x20, 0x61]))).rejects.toThrow(
      /latin\.txt: not UTF-8 text between bytes 0 and 6/,
    );
    await expect(read("half.txt", Buffer.from([0x61, 0xc3]))).rejects.toThrow(FormatError);
    const whole = gzipSync("some text\n\nand more");
    await expect(read("cut.txt.gz", whole.subarray(0, whole.length - 9))).rejects.toThrow(
      /cut\.txt\.gz: not a whole gzip file/,
    );
    await expect(read("plain.txt.gz", "not compressed")).rejects.toThrow(/not a whole gzip file/);
    await expect(read("bomb.txt.gz", gzipSync(Buffer.alloc(4 * MAX_DOCUMENT, 97)))).rejects.toThrow(
      /a document of more than 8388608 characters/,
    );
  });

  it("names a file that is not there, and passes errors of a compressed one on", async () => {
    for (const name of ["none.txt", "none.txt.gz"]) {
      await expect(documentsOf(join(folder, name)).next()).rejects.toThrow(SaettaError);
      await expect(checkText(join(folder, name))).rejects.toThrow(/there is no such file/);
    }
    await expect(checkText(folder)).rejects.toThrow(/not a file/);
    writeFileSync(join(folder, "empty"), "");
    await expect(checkText(join(folder, "empty"))).rejects.toThrow(/the file is empty/);
  });
});
