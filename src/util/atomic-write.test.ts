import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { atomicWrite } from "./atomic-write.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-atomic-"));
});
afterEach(() => rm(folder, { recursive: true }));

it("replaces a file only when the new one is whole", async () => {
  const path = join(folder, "a");
  await writeFile(path, "old");
  await atomicWrite(path, async (write) => {
    await write(Buffer.from("new "));
    expect(await readFile(path, "utf8")).toBe("old");
    await write(Buffer.from("file"));
  });
  expect(await readFile(path, "utf8")).toBe("new file");
  expect(await readdir(folder)).toEqual(["a"]);
});

it("leaves the old file, and nothing else, when the content fails", async () => {
  const path = join(folder, "a");
  await writeFile(path, "old");
  const failing = atomicWrite(path, async (write) => {
    await write(Buffer.from("half"));
    throw new Error("no more");
  });
  await expect(failing).rejects.toThrow("no more");
  expect(await readFile(path, "utf8")).toBe("old");
  expect(await readdir(folder)).toEqual(["a"]);
});

it("names the file that cannot be written", async () => {
  const path = join(folder, "none", "a");
  await expect(atomicWrite(path, () => Promise.resolve())).rejects.toThrow(`${path}: cannot be written`);
});
