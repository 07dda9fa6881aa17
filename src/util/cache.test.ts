import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { keepIn } from "./cache.ts";

describe("keepIn", () => {
  let folder = "";
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "saetta-cache-"));
  });
  afterAll(() => rm(folder, { recursive: true }));

  it("makes a file once, in the first folder that can be written, and leaves nothing else there", async () => {
    await writeFile(join(folder, "file"), "");
    const folders = [join(folder, "file", "build"), join(folder, "new", "cache")];
    let made = 0;
    const make = () => Promise.resolve(Buffer.from(`made ${++made}`));
    for (let i = 0; i < 2; i++)
      expect(Buffer.from(await keepIn(folders, "name", "here", make)).toString()).toBe("made 1");
    expect(await readdir(folders[1]!)).toEqual(["name"]);
    await expect(keepIn([folders[0]!], "name", "here", make)).rejects.toThrow(
      /^here: no folder .* can be written .*XDG_CACHE_HOME/,
    );
  });

  it("keeps nothing when the file cannot be made", async () => {
    const empty = join(folder, "empty");
    await mkdir(empty);
    await expect(keepIn([empty], "name", "here", () => Promise.reject(new Error("no")))).rejects.toThrow("no");
    expect(await readdir(empty)).toEqual([]);
  });
});
