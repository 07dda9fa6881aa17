import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { findMoved, placesAfterMove, relativeTo } from "./moved.ts";

let root = "";
beforeEach(async () => {
  root = await realpath(await mkdtemp(join(tmpdir(), "saetta-moved-")));
});
afterEach(() => rm(root, { recursive: true }));

describe("relativeTo", () => {
  it("follows links of folders, and keeps the names of files", async () => {
    const real = join(root, "real");
    await mkdir(join(real, "run"), { recursive: true });
    await writeFile(join(root, "blob"), "");
    await symlink(join(root, "blob"), join(real, "acts.npy"));
    await symlink(real, join(root, "alias"));
    expect(await relativeTo(join(root, "alias", "run"), [join(root, "alias", "acts.npy")])).toEqual(["../acts.npy"]);
  });
});

describe("a path that a file records", () => {
  it("is looked for where it was relative to the file, then next to the file with its folder and without", () => {
    const ends = ["../gpt/model.onnx", "gpt/model.onnx", "model.onnx"].map((end) => `/new/acts/${end}`);
    expect(placesAfterMove("/new/acts/a.h5", "/old/gpt/model.onnx", "../gpt/model.onnx")).toEqual(ends);
    expect(placesAfterMove("/new/acts/a.h5", "C:\\old\\gpt\\model.onnx", undefined)).toEqual(ends.slice(1));
    expect(placesAfterMove("a.h5", "m.onnx", undefined)).toEqual(["./m.onnx"]);
  });

  it("is found through a linked folder, with a note unless it is where it was", async () => {
    await mkdir(join(root, "real", "acts"), { recursive: true });
    const model = join(root, "real", "model.onnx");
    await writeFile(model, "");
    await symlink(join(root, "real", "acts"), join(root, "alias"));
    const places = placesAfterMove(join(root, "alias", "a.h5"), "/old/gpt/model.onnx", "../model.onnx");
    const notes: string[] = [];
    const find = (...paths: string[]) => findMoved("the model", paths, (note) => notes.push(note));
    expect(await find(model, ...places)).toBe(model);
    expect(notes).toEqual([]);
    expect(await find("/old/gpt/model.onnx", ...places)).toBe(model);
    expect(notes).toEqual([`/old/gpt/model.onnx is not there any more; the model is read from ${model}`]);
    expect(await find("/old/gpt/model.onnx")).toBeUndefined();
  });
});
