import { chmod, mkdtemp, readdir, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { temporaryCache } from "../../util/cache.ts";
import { kernelLibrary } from "./compile.ts";

/** Stands in for a compiler: it only says its version and makes an empty file. */
async function fakeCompiler(folder: string, body: string): Promise<string> {
  const path = join(folder, `compiler-${Math.random()}`);
  await writeFile(path, `#!/bin/sh\nif [ "$1" = --version ]; then echo fake 1; exit; fi\n${body}\n`);
  await chmod(path, 0o755);
  return path;
}

describe("kernelLibrary", () => {
  let folder = "";
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "saetta-compile-"));
  });
  afterAll(() => rm(folder, { recursive: true }));

  const touchLast = 'while [ $# -gt 1 ]; do if [ "$1" = -o ]; then : > "$2"; fi; shift; done';

  it("compiles once, and again when the flags differ", async () => {
    const compiler = await fakeCompiler(folder, touchLast);
    const folders = [join(folder, "cache")];
    const first = await kernelLibrary({ compiler, folders });
    const { mtimeMs } = await stat(first);
    expect(await kernelLibrary({ compiler, folders })).toBe(first);
    expect((await stat(first)).mtimeMs).toBe(mtimeMs);
    const other = await kernelLibrary({ compiler, folders, flags: ["-g"] });
    expect(other).not.toBe(first);
    expect(new Set(await readdir(folders[0]))).toEqual(new Set([first, other].map((path) => basename(path))));
  });

  it("takes the next folder when the first cannot be written", async () => {
    const compiler = await fakeCompiler(folder, touchLast);
    await writeFile(join(folder, "file"), "");
    const second = join(folder, "second");
    expect(await kernelLibrary({ compiler, folders: [join(folder, "file", "build"), second] })).toContain(second);
    await expect(kernelLibrary({ compiler, folders: [join(folder, "file", "build")] })).rejects.toThrow(
      /can be written.*XDG_CACHE_HOME/,
    );
  });

  it("uses what was compiled where there is no compiler now, the newest, and nothing of other flags", async () => {
    const folders = [join(folder, "kept")];
    const first = await kernelLibrary({ compiler: await fakeCompiler(folder, touchLast), folders });
    const second = await kernelLibrary({ compiler: await fakeCompiler(folder, touchLast), folders });
    expect(second).not.toBe(first);
    await utimes(first, 1, 1);
    expect(await kernelLibrary({ compiler: "no-such-compiler", folders })).toBe(second);
    await utimes(second, 0, 0);
    expect(await kernelLibrary({ compiler: "no-such-compiler", folders })).toBe(first);
    await expect(kernelLibrary({ compiler: "no-such-compiler", folders, flags: ["-g"] })).rejects.toThrow(
      "cannot be run; install g++",
    );
  });

  it("loads nothing from a temporary folder that others can write to", async () => {
    vi.stubEnv("TMPDIR", folder);
    try {
      const folders = [temporaryCache()!];
      const library = await kernelLibrary({ compiler: await fakeCompiler(folder, touchLast), folders });
      expect(await kernelLibrary({ compiler: "no-such-compiler", folders })).toBe(library);
      await chmod(temporaryCache()!, 0o777);
      await expect(kernelLibrary({ compiler: "no-such-compiler", folders })).rejects.toThrow("cannot be run");
    } finally {
      vi.unstubAllEnvs();
    }
  });

  it("says how to mend a missing compiler", async () => {
    await expect(kernelLibrary({ compiler: "no-such-compiler", folders: [folder] })).rejects.toThrow(
      /cpu engine: the C\+\+ compiler "no-such-compiler" cannot be run; install g\+\+ .* or set CXX/,
    );
  });

  it("shows the first lines of what a compiler complained about, and leaves nothing behind", async () => {
    const compiler = await fakeCompiler(folder, "for i in 1 2 3 4 5; do echo error $i >&2; done; exit 1");
    const cache = join(folder, "failed");
    await expect(kernelLibrary({ compiler, folders: [cache] })).rejects.toThrow(
      /failed: error 1 \| error 2 \| error 3; /,
    );
    expect(await readdir(cache)).toEqual([]);
  });
});
