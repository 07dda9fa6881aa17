import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { cacheFolders, keepIn, temporaryCache, trustedFolders, writableFolder } from "./cache.ts";

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
    for (let i = 0; i < 2; i++) expect(Buffer.from(await keepIn(folders, "name", make)).toString()).toBe("made 1");
    expect(await readdir(folders[1]!)).toEqual(["name"]);
    await expect(writableFolder([folders[0]!], "here")).rejects.toThrow(
      /^here: no folder .* can be written .*XDG_CACHE_HOME/,
    );
  });

  it("gives what it made where no folder takes it", async () => {
    await writeFile(join(folder, "file"), "");
    const made = await keepIn([join(folder, "file", "build"), "/proc/saetta"], "name", async () => Buffer.from("made"));
    expect(Buffer.from(made).toString()).toBe("made");
  });

  it("keeps nothing when the file cannot be made", async () => {
    const empty = join(folder, "empty");
    await mkdir(empty);
    await expect(keepIn([empty], "name", () => Promise.reject(new Error("no")))).rejects.toThrow("no");
    expect(await readdir(empty)).toEqual([]);
  });
});

describe("the cache in the temporary folder", () => {
  let outer = "";
  beforeEach(async () => {
    outer = await mkdtemp(join(tmpdir(), "saetta-cache-"));
    await writeFile(join(outer, "file"), "");
    vi.stubEnv("TMPDIR", outer);
    vi.stubEnv("XDG_CACHE_HOME", join(outer, "file"));
  });
  afterEach(async () => {
    vi.unstubAllEnvs();
    await rm(outer, { recursive: true });
  });
  const closed = () => [join(outer, "file", "build"), ...cacheFolders().slice(1)];
  const make = async () => Buffer.from("made");

  it("is used where the others cannot be written, and is closed to others", async () => {
    expect(closed().slice(1)).toEqual([join(outer, "file", "saetta"), temporaryCache()]);
    const before = process.umask(0);
    try {
      expect(await writableFolder(closed(), "here")).toBe(temporaryCache());
      await keepIn(closed(), "name", make);
    } finally {
      process.umask(before);
    }
    expect((await stat(temporaryCache()!)).mode & 0o777).toBe(0o700);
    expect(await readFile(join(temporaryCache()!, "name"), "utf8")).toBe("made");
    expect(await trustedFolders(closed())).toContain(temporaryCache());
  });

  it.each([
    ["others can write to", (path: string) => mkdir(path).then(() => chmod(path, 0o777))],
    ["is a link", (path: string) => mkdir(join(outer, "real")).then(() => symlink(join(outer, "real"), path))],
    ["is a file", (path: string) => writeFile(path, "")],
  ])("is neither read nor written when it %s", async (_, prepare) => {
    await prepare(temporaryCache()!);
    await writeFile(join(temporaryCache()!, "name"), "planted").catch(() => undefined);
    expect(await trustedFolders(closed())).not.toContain(temporaryCache());
    expect(Buffer.from(await keepIn(closed(), "name", make)).toString()).toBe("made");
    await expect(writableFolder(closed(), "here")).rejects.toThrow(/^here: no folder .* can be written .*TMPDIR/);
  });
});
