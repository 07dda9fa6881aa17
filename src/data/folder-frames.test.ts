import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { npyHead } from "../formats/npy.ts";
import { layOut, type SafetensorsDType } from "../formats/safetensors.ts";
import { bytesOf, float32Of } from "../util/bytes.ts";
import { FolderFrames, type WatchOptions } from "./folder-frames.ts";
import type { Frame } from "./row-frames.ts";
import { openFrames } from "./stream-source.ts";

let folder: string;
const opened: FolderFrames[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-watch-"));
});
afterEach(async () => {
  for (const frames of opened.splice(0)) await frames.close(false);
  await rm(folder, { recursive: true });
});
const at = (name: string) => join(folder, name);

function safetensors(arrays: Readonly<Record<string, readonly [SafetensorsDType, number[], ArrayBufferView]>>): Buffer {
  const parts = Object.entries(arrays).map(([name, [dtype, shape]]) => ({ name, dtype, shape }));
  return Buffer.concat([layOut(parts).head, ...Object.values(arrays).map(([, , values]) => bytesOf(values))]);
}

/** As vLLM writes a request of `tokens` tokens: value = 1000 * request + 10 * token + layer. */
const request = (number: number, tokens: number, layers = 2, width = 3): Buffer =>
  safetensors({
    hidden_states: [
      "F32",
      [tokens, layers, width],
      Float32Array.from(
        { length: tokens * layers * width },
        (_, i) => 1000 * number + 10 * Math.floor(i / (layers * width)) + (Math.floor(i / width) % layers),
      ),
    ],
    token_ids: ["I64", [tokens], BigInt64Array.from({ length: tokens }, (_, i) => BigInt(100 * number + i))],
  });
const valuesOf = (number: number, tokens: number, layer: number) =>
  Array.from({ length: tokens }, (_, i) => 1000 * number + 10 * i + layer);

const notes: string[] = [];
let looks = 0;
/** Resolves after so many more looks that found nothing. */
async function looked(count: number): Promise<void> {
  const end = looks + count;
  await expect.poll(() => looks, { timeout: 4_000, interval: 1 }).toBeGreaterThanOrEqual(end);
}

function watch(options: Partial<WatchOptions> = {}): FolderFrames {
  notes.length = 0;
  const free = async () => {
    looks++;
    return undefined;
  };
  const frames = new FolderFrames(folder, {
    ...{ consume: false, timeout: 1e9, pause: 1, layer: 1, free },
    ...{ onNote: (note: string) => notes.push(note) },
    ...options,
  });
  opened.push(frames);
  return frames;
}

/** The first number of each row. */
function firsts(frame: Frame | undefined, width = 3): number[] {
  return [...float32Of(frame!.values)].filter((_, i) => i % width === 0);
}

async function all(frames: FolderFrames): Promise<number[][]> {
  const found: number[][] = [];
  for (let frame = await frames.next(); frame !== undefined; frame = await frames.next()) found.push(firsts(frame));
  return found;
}

describe("files that a program writes into a folder", () => {
  it("are taken when their locks are released, in natural order, with their tokens; DONE ends them", async () => {
    await writeFile(at("r10.safetensors"), request(10, 4));
    await writeFile(at("r2.safetensors"), request(2, 3));
    await writeFile(at("r2.safetensors.lock"), "");
    const frames = watch();
    expect(await frames.header()).toMatchObject({ width: 3, dtype: "f32", tokens: true });
    const first = await frames.next();
    expect(firsts(first)).toEqual(valuesOf(10, 4, 1));
    expect(first).toMatchObject({ rows: 4, context: 4 });
    expect([...first!.tokens!]).toEqual([1000, 1001, 1002, 1003]);
    let isDone = false;
    const second = frames.next().finally(() => {
      isDone = true;
    });
    await looked(15);
    expect(isDone).toBe(false);
    await rm(at("r2.safetensors.lock"));
    expect(firsts(await second)).toEqual(valuesOf(2, 3, 1));
    await writeFile(at("r30.safetensors.part"), request(30, 2));
    await rename(at("r30.safetensors.part"), at("r30.safetensors"));
    await writeFile(at("DONE"), "");
    expect(await all(frames)).toEqual([valuesOf(30, 2, 1)]);
    expect(notes).toEqual([]);
  });

  it("are waited for while they grow", async () => {
    const bytes = request(1, 5);
    await writeFile(at("a.safetensors"), "");
    const frames = watch();
    const header = frames.header();
    for (const end of [20, bytes.length - 1, bytes.length]) {
      await looked(5);
      await writeFile(at("a.safetensors"), bytes.subarray(0, end));
    }
    await header;
    expect(firsts(await frames.next())).toEqual(valuesOf(1, 5, 1));
  });

  it("may be npy files, and whole contexts of any number", async () => {
    const values = Float32Array.from({ length: 12 }, (_, i) => i);
    await writeFile(at("chunk_0.npy"), Buffer.concat([npyHead("f32", [2, 2, 3]), bytesOf(values)]));
    await writeFile(at("chunk_1.npy"), Buffer.concat([npyHead("f32", [4, 3]), bytesOf(values)]));
    await writeFile(at("DONE"), "");
    const frames = watch({ layer: undefined });
    await frames.header();
    expect(await frames.next()).toMatchObject({ rows: 4, context: 2, tokens: undefined });
    expect(await frames.next()).toMatchObject({ rows: 4, context: undefined });
    expect(await frames.next()).toBeUndefined();
  });

  it.each([
    ["a lock that is not released", 1, true, "b.safetensors: its lock b.safetensors.lock was not released in"],
    ["a file that is cut", 0.5, false, /b\.safetensors: did not become whole in .* \(.*but the file ends at byte \d+/],
    ["a file that stays empty", 0, false, /b\.safetensors: did not become whole in .* \(the file is empty/],
  ] as const)("end with one line that names it: %s", async (_, share, locked, message) => {
    const bytes = request(2, 4);
    await writeFile(at("a.safetensors"), request(1, 4));
    await writeFile(at("b.safetensors"), bytes.subarray(0, share * bytes.length));
    if (locked) await writeFile(at("b.safetensors.lock"), "");
    const frames = watch({ timeout: 50, consume: true });
    await frames.header();
    expect(firsts(await frames.next())).toEqual(valuesOf(1, 4, 1));
    await expect(frames.next()).rejects.toThrow(message);
    expect(notes).toEqual([]);
    expect((await readdir(folder)).sort()).toEqual(["b.safetensors", ...(locked ? ["b.safetensors.lock"] : [])]);
  });

  it.each([
    ["width", request(2, 4, 2, 5), "b.safetensors: rows of 5 numbers, but the files before have 3; give the files of"],
    [
      "dtype",
      safetensors({ hidden_states: ["F16", [4, 2, 3], new Uint16Array(24)] }),
      "b.safetensors: holds f16, but the files before hold f32",
    ],
    [
      "tokens",
      safetensors({ hidden_states: ["F32", [4, 2, 3], new Float32Array(24)] }),
      "b.safetensors: has no tokens, but the files before have",
    ],
  ])("of another %s are an error, and are not deleted", async (_, bytes, message) => {
    await writeFile(at("a.safetensors"), request(1, 4));
    await writeFile(at("b.safetensors"), bytes);
    const frames = watch({ consume: true });
    await frames.header();
    await frames.next();
    await expect(frames.next()).rejects.toThrow(message);
    expect(await readdir(folder)).toEqual(["b.safetensors"]);
  });

  it("say which layers they have", async () => {
    await writeFile(at("a.safetensors"), request(1, 4));
    await expect(watch({ layer: 2 }).header()).rejects.toThrow("has 2 layers; name one: --layer 0 to 1");
    await expect(watch({ layer: undefined }).header()).rejects.toThrow("has 2 layers; name one: --layer 0 to 1");
    await writeFile(at("a.safetensors"), request(1, 4, 1));
    await watch({ layer: undefined }).header();
  });

  it("are deleted once all rows are taken, and nothing else is", async () => {
    for (const name of ["a", "b", "c"]) await writeFile(at(`${name}.safetensors`), request(1, 4));
    const others = [".hidden.safetensors", "metadata.json", "rows.safetensors.part", "notes.txt", "other"];
    for (const name of others.slice(0, 4)) await writeFile(at(name), "mine");
    await mkdir(at("other"));
    await writeFile(at("other/d.safetensors"), request(1, 4));
    const frames = watch({ consume: true });
    await frames.header();
    await frames.next();
    expect(existsSync(at("a.safetensors"))).toBe(true);
    await frames.next();
    expect(existsSync(at("a.safetensors"))).toBe(false);
    // Another file of the same name is not the one that was used.
    await writeFile(at("c.safetensors"), request(7, 4));
    await rename(at("c.safetensors"), at("b.safetensors"));
    expect(firsts(await frames.next())).toEqual(valuesOf(7, 4, 1));
    expect(existsSync(at("b.safetensors"))).toBe(true);
    await frames.close(false);
    expect((await readdir(folder)).sort()).toEqual([...others, "b.safetensors"].sort());
  });

  it.each([true, false])("that are read to the end when it is over: all rows taken is %s", async (isUsed) => {
    await writeFile(at("a.safetensors"), request(1, 4));
    const frames = watch({ consume: true });
    await frames.header();
    await frames.next();
    await frames.close(isUsed);
    expect(existsSync(at("a.safetensors"))).toBe(!isUsed);
  });

  it("stay without --consume, and are used once", async () => {
    await writeFile(at("a.safetensors"), request(1, 4));
    await writeFile(at("DONE"), "");
    const frames = watch();
    await frames.header();
    expect(await all(frames)).toHaveLength(1);
    expect((await readdir(folder)).sort()).toEqual(["DONE", "a.safetensors"]);
  });

  it("that stop coming end the rows, with a note", async () => {
    await writeFile(at("a.safetensors"), request(1, 4));
    await writeFile(at("empty.safetensors"), request(1, 0));
    const frames = watch({ timeout: 50 });
    await frames.header();
    expect(await all(frames)).toHaveLength(1);
    expect(notes).toEqual([
      `${at("empty.safetensors")} has no rows and is left out`,
      expect.stringContaining("no new file came in"),
    ]);
  });

  it("that never come are an error, as is a folder that is not there", async () => {
    await expect(watch({ timeout: 20 }).header()).rejects.toThrow(`${folder}: no file of activations came; start`);
    const frames = new FolderFrames(at("none"), { consume: false, timeout: 1e9, onNote: () => undefined });
    await expect(frames.header()).rejects.toThrow("none: no such file");
  });

  it("are not waited for once it is closed", async () => {
    const frames = watch();
    const header = frames.header();
    await looked(2);
    await frames.close(false);
    await expect(header).rejects.toThrow("no file of activations came");
  });

  it("fill the disk: a note says so once", async () => {
    const frames = watch({ timeout: 50, free: async () => 1024 * 1024 });
    await expect(frames.header()).rejects.toThrow();
    expect(notes).toEqual([
      `${folder}: 1.0 MiB are free there, so that the program that writes the files may stop; --consume deletes files after use`,
    ]);
  });

  it("are contexts of different lengths, held out whole", async () => {
    const lengths = Array.from({ length: 40 }, (_, i) => 3 + (i % 5));
    for (const [i, tokens] of lengths.entries()) await writeFile(at(`r${i}.safetensors`), request(i, tokens));
    await writeFile(at("DONE"), "");
    const total = lengths.reduce((sum, each) => sum + each, 0);
    const source = await openFrames(watch(), {
      ...{ tokens: total, holdout: 0.3, excludeTokens: "none", seed: 1, buffer: total },
      excludePositions: [0],
    });
    const { first, count } = source.heldOut!;
    const bytes = new Uint8Array(count * 12);
    await source.read(first, count, bytes);
    const rows = [...float32Of(bytes)].filter((_, i) => i % 3 === 0);
    const requests = [...new Set(rows.map((value) => Math.floor(value / 1000)))];
    expect(requests.length).toBeGreaterThan(2);
    // All rows of each of them but the first, which is excluded.
    expect(rows).toEqual(requests.flatMap((each) => valuesOf(each, lengths[each]!, 1).slice(1)));
    await source.close();
  });
});
