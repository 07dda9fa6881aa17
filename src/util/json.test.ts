import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { readJsonFile, readTextFile } from "./json.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-json-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function written(bytes: Uint8Array | string): Promise<string> {
  const path = join(folder, "a.json");
  await writeFile(path, bytes);
  return path;
}

it("a byte order mark before JSON or text is skipped, and only there", async () => {
  expect(await readJsonFile(await written('\ufeff{"k": 1}'))).toEqual({ k: 1 });
  expect(await readTextFile(await written("\ufeffk\ufeff"))).toBe("k\ufeff");
});

it("UTF-16, as some editors write it, is named", async () => {
  const path = await written(Buffer.from('\ufeff{"k": 1}', "utf16le"));
  await expect(readJsonFile(path)).rejects.toThrow(`${path}: is UTF-16, not UTF-8; save it as UTF-8`);
});
