import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { layOut } from "../../src/formats/safetensors.ts";
import { bytesOf } from "../../src/util/bytes.ts";
import { learnableRows } from "../support/memory-source.ts";
import { checkpointsOf, metricsOf } from "../support/runs.ts";
import { saetta } from "./saetta.ts";

const D = 8;
const T = 48;
const SMALL = ["--engine", "reference", "--latents", "24", "--k", "3", "--auxk", "6", "--batch", "32"];
const VALUES = learnableRows(960, D, 12);
let folder: string;
let made = 0;
const fresh = (kind: string) => `${kind}-${made++}`;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-watch-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

/** A request of T tokens as vLLM writes it: layer 1 has the rows, layer 0 zeros. */
function request(number: number): Buffer {
  const states = new Float32Array(T * 2 * D);
  for (let i = 0; i < T; i++)
    states.set(VALUES.subarray(D * (T * number + i), D * (T * number + i + 1)), D * (2 * i + 1));
  const tokens = BigInt64Array.from({ length: T }, (_, i) => BigInt(i));
  const { head } = layOut([
    { name: "hidden_states", dtype: "F32", shape: [T, 2, D] },
    { name: "token_ids", dtype: "I64", shape: [T] },
  ]);
  return Buffer.concat([head, bytesOf(states), bytesOf(tokens)]);
}

async function filled(first: number, end: number): Promise<string> {
  const name = fresh("rows");
  await mkdir(join(folder, name));
  for (let i = first; i < end; i++) await writeFile(join(folder, name, `r${i}.safetensors`), request(i));
  return name;
}

const WATCH = ["--layer", "1", "--tokens", "960", "--buffer", "96", "--holdout", "0", "--exclude-tokens", "none"];

describe("saetta train --watch", () => {
  it("trains on what comes until DONE, deletes what it used with --consume, and keeps it with --keep-rows", async () => {
    const [run, kept, rows] = [fresh("run"), fresh("kept"), await filled(0, 20)];
    await writeFile(join(folder, rows, "DONE"), "");
    const words = ["--watch", rows, "--consume", ...WATCH, "--keep-rows", kept];
    const { code, err } = await saetta(folder, "train", ...words, ...SMALL, "--out", run);
    expect({ code, err }).toEqual({ code: 0, err: `saetta: note: 960 rows kept in ${kept}, in 1 file\n` });
    expect(await readdir(join(folder, rows))).toEqual(["DONE"]);
    expect((await metricsOf(join(folder, run))).at(-1)).toMatchObject({ step: 30 });
    expect((await saetta(folder, "eval", run, kept)).code).toBe(0);
  });

  it("ends with a checkpoint and one line where the program was killed; resume takes other files", async () => {
    const [run, rows] = [fresh("run"), await filled(0, 10)];
    await writeFile(join(folder, rows, "r10.safetensors"), request(10).subarray(0, 500));
    await writeFile(join(folder, rows, "r10.safetensors.lock"), "");
    const words = ["--watch", rows, "--consume", "--watch-timeout", "1"];
    const { code, err } = await saetta(folder, "train", ...words, ...WATCH, ...SMALL, "--out", run);
    expect(code).toBe(1);
    expect(err.trimEnd().split("\n")).toEqual([
      expect.stringContaining("the rows ended after 480 of 960, at step 15 of 30"),
      `saetta: ${rows}/r10.safetensors: its lock r10.safetensors.lock was not released in 1 s; look whether the program that writes it still runs; remove the lock if the file is whole`,
    ]);
    expect((await checkpointsOf(join(folder, run))).at(-1)).toBe("step-00000015");
    expect((await readdir(join(folder, rows))).sort()).toEqual(["r10.safetensors", "r10.safetensors.lock"]);
    const more = await filled(10, 20);
    const resumed = await saetta(folder, "resume", run, "--watch", more, "--consume");
    expect(resumed.code).toBe(0);
    expect((await checkpointsOf(join(folder, run))).at(-1)).toBe("step-00000030");
  });

  it("a layer of such files is also data for every command", async () => {
    const [run, rows] = [fresh("run"), await filled(0, 20)];
    const { code, out } = await saetta(folder, "train", rows, "--layer", "1", ...SMALL, "--out", run);
    expect(code).toBe(0);
    expect(out).toContain("960 x 8 f32");
    expect((await saetta(folder, "eval", run)).code).toBe(0);
    const inspected = await saetta(folder, "inspect", rows, "--layer", "1");
    expect(inspected.out).toMatch(/rows +960/);
    const without = await saetta(folder, "train", rows, ...SMALL, "--out", fresh("run"));
    expect(without.err).toContain("has 2 layers; name one: --layer 0 to 1");
    expect(without.code).toBe(2);
  });

  it.each([
    [["--watch", "rows"], "--watch needs --tokens"],
    [["acts.h5", "--watch", "rows"], "--watch and other data exclude each other"],
    [["acts.h5", "--consume"], "--consume needs --watch"],
    [["acts.h5", "--watch-timeout", "3"], "--watch-timeout needs --watch"],
    [
      ["--watch", "rows", "--tokens", "9", "--model", "m", "--text", "t", "--tensor", "x"],
      "--watch and --model exclude",
    ],
  ])("%#: refuses what makes no sense", async (words, message) => {
    const { code, err } = await saetta(folder, "train", ...words, ...SMALL, "--out", fresh("run"));
    expect(err).toContain(message);
    expect(code).toBe(2);
  });
});
