import { execFileSync } from "node:child_process";
import { appendFile, mkdtemp, rename, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { LineReader } from "./lines.ts";

let folder: string;
let path: string;
let made = 0;
let lines: string[];
let resets: number;
let reader: LineReader;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-lines-"));
});
afterAll(() => rm(folder, { recursive: true }));
beforeEach(() => {
  path = join(folder, `log-${made++}`);
  lines = [];
  resets = 0;
  reader = new LineReader(path, {
    line: (text) => lines.push(text),
    reset: () => {
      lines = [];
      resets++;
    },
  });
});

describe("a log that grows", () => {
  it("is read on from where it ended, and a line only once it has its end", async () => {
    await reader.read(); // it is not there yet
    await writeFile(path, 'one\ntwo\n{"step":');
    await reader.read();
    expect(lines).toEqual(["one", "two"]);
    await reader.read();
    expect(lines).toEqual(["one", "two"]);
    await appendFile(path, "3}\nfo");
    await reader.read();
    expect(lines).toEqual(["one", "two", '{"step":3}']);
    await appendFile(path, "ur\n");
    await reader.read();
    expect(lines).toEqual(["one", "two", '{"step":3}', "four"]);
    expect(resets).toBe(0);
  });

  it("in many chunks, with characters across their borders", async () => {
    const many = Array.from({ length: 60_000 }, (_, i) => `${i} ⚡ ${"x".repeat(i % 90)}`);
    await writeFile(path, `${many.join("\n")}\n`);
    await reader.read();
    expect(lines.length).toBe(many.length);
    expect(lines.every((line, i) => line === many[i])).toBe(true);
  });

  it("without a line that is longer than anybody writes", async () => {
    await writeFile(path, `one\n${"y".repeat(3_000_000)}`);
    await reader.read();
    await appendFile(path, `${"z".repeat(500_000)}\ntwo\n`);
    await reader.read();
    expect(lines).toEqual(["one", "two"]);
  });
});

describe("a log that is not what it was", () => {
  it("cut back comes anew", async () => {
    await writeFile(path, "one\ntwo\nthree\n");
    await reader.read();
    await truncate(path, 8);
    await reader.read();
    expect([lines, resets]).toEqual([["one", "two"], 1]);
  });

  it("cut back and grown beyond where it was comes anew", async () => {
    await writeFile(path, "one\ntwo\nthree\n");
    await reader.read();
    await truncate(path, 8);
    await appendFile(path, "3.14159\nfour\nfive\n");
    await reader.read();
    expect([lines, resets]).toEqual([["one", "two", "3.14159", "four", "five"], 1]);
  });

  it("replaced by another file comes anew, though it begins the same", async () => {
    await writeFile(path, "one\ntwo\n");
    await reader.read();
    await writeFile(`${path}.new`, "one\ntwo\nthree\n");
    await rename(`${path}.new`, path);
    await reader.read();
    expect([lines, resets]).toEqual([["one", "two", "three"], 1]);
  });

  it("gone is empty", async () => {
    await writeFile(path, "one\n");
    await reader.read();
    await rm(path);
    await reader.read();
    expect([lines, resets]).toEqual([[], 1]);
  });

  it("a link, a pipe or a folder in its place is refused, and blocks nobody", async () => {
    await symlink("/etc/hostname", path);
    await expect(reader.read()).rejects.toThrow("is a link, which is not followed");
    await rm(path);
    execFileSync("mkfifo", [path]);
    await expect(reader.read()).rejects.toThrow("is not a regular file");
    await expect(new LineReader(folder, { line: () => undefined, reset: () => undefined }).read()).rejects.toThrow(
      "is not a regular file",
    );
    expect(lines).toEqual([]);
  });
});
