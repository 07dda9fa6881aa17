import { copyFile, link, mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeActivations } from "../../test/support/activations.ts";
import { numberedRows } from "../../test/support/memory-source.ts";
import { openSource } from "./open.ts";

let folder: string;
let a: string;
let b: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-repeats-"));
  a = await writeActivations(join(folder, "a.h5"), numberedRows(100, 4), [100, 4]);
  b = await writeActivations(
    join(folder, "b.h5"),
    numberedRows(100, 4).map((value, at) => (at === 40 ? -1 : value)),
    [100, 4],
  );
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

async function opened(paths: readonly string[]) {
  const source = await openSource(paths);
  await source.close();
  return source;
}

describe("files that hold the same rows", () => {
  it("are read once, whatever they are called", async () => {
    const [soft, hard, copy] = ["soft.h5", "hard.h5", "copy.h5"].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    await symlink(a, soft);
    await link(a, hard);
    await copyFile(a, copy);
    const cases = [
      [a, `${a} is named twice`],
      [soft, `${soft} and ${a} are the same file`],
      [hard, `${hard} and ${a} are the same file`],
      [copy, `${copy} holds the same rows as ${a}`],
    ] as const;
    for (const [other, what] of cases) {
      const source = await opened([a, other, b]);
      expect(source.rows).toBe(200);
      expect(source.paths).toEqual([a, b]);
      expect(source.notes).toEqual([
        `${what}: it is read once, or rows would be both trained on and held out; --epochs 2 trains on all rows twice`,
      ]);
    }
    for (const name of [soft, hard, copy]) await rm(name);
  });

  it("are told from files that differ in one element, and a folder from a file in it", async () => {
    expect((await opened([a, b])).rows).toBe(200);
    expect((await opened([a, b])).notes ?? []).toEqual([]);
    expect((await opened([folder, b])).paths).toEqual([a, b]);
  });
});
