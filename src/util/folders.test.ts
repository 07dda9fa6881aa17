import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { makeFolders } from "./folders.ts";

it("makes a folder with its parents, and leaves one that is there", async () => {
  const folder = await mkdtemp(join(tmpdir(), "saetta-folders-"));
  const path = join(folder, "a", "b", "c");
  await makeFolders(path);
  await makeFolders(path);
  expect((await stat(path)).isDirectory()).toBe(true);
  await writeFile(join(folder, "file"), "");
  await expect(makeFolders(join(folder, "file", "x"))).rejects.toThrow(/ENOTDIR/);
  await expect(makeFolders(join(folder, "file"))).rejects.toThrow(/EEXIST/);
  await rm(folder, { recursive: true });
});

it.runIf(process.platform === "linux")("ends where the file system takes no folders", async () => {
  await expect(makeFolders("/proc/saetta/x")).rejects.toThrow(/ENOENT/);
});
