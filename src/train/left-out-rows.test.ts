/**
 * Rows that are left out for their position, their norm or being all zero, from the start of a run
 * to its resume; and rows of any scale.
 */

import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeActivations } from "../../test/support/activations.ts";
import { learnableRows, memorySource } from "../../test/support/memory-source.ts";
import { checkpointOf } from "../../test/support/runs.ts";
import { evalData } from "../commands/eval-data.ts";
import { type TrainOptions, withDefaults } from "../config.ts";
import { chooseRows } from "../data/choose.ts";
import { openSource } from "../data/open.ts";
import type { Source } from "../data/source.ts";
import type { Sae } from "../inference/sae.ts";
import { resume } from "./resume.ts";
import { train } from "./train.ts";

const D = 8;
const T = 20;
const SMALL: TrainOptions = {
  engine: "reference",
  latents: 24,
  k: 3,
  auxk: 6,
  batch: 32,
  tokens: 32 * 30,
  holdout: 0.2,
  checkpointEvery: 10,
  keep: 100,
};

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-left-out-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

/**
 * Trains to the end. `values`: the rows of the source, for the FVU of those that it holds out,
 * computed here.
 */
async function trained(source: Source, options: TrainOptions = {}, out: string | false = false, values?: Float32Array) {
  const notes: string[] = [];
  const run = await train(source, { ...SMALL, ...options, out, onNote: (note) => notes.push(note) });
  const { sae, ...result } = await run.finished;
  const { holdout } = await chooseRows(source, withDefaults({ ...SMALL, ...options }));
  const held = holdout.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i));
  const byHand = values === undefined ? Number.NaN : await fvuOf(sae, values, held);
  await sae.close();
  return { run, notes, fvu: result.report!.holdout_fvu!, held, byHand };
}

async function trainedOn(path: string, options: TrainOptions, out: string): Promise<void> {
  const source = await openSource([path]);
  await trained(source, options, out);
  await source.close();
}

async function fvuOf(sae: Sae, values: Float32Array, rows: readonly number[]): Promise<number> {
  const x = Float32Array.from(rows.flatMap((row) => [...values.subarray(row * D, (row + 1) * D)]));
  const out = await sae.decode(await sae.encode(x));
  const mean = Array.from(
    { length: D },
    (_, i) => x.filter((_, at) => at % D === i).reduce((a, b) => a + b, 0) / rows.length,
  );
  const err = x.reduce((sum, value, at) => sum + (value - out[at]!) ** 2, 0);
  return err / x.reduce((sum, value, at) => sum + (value - mean[at % D]!) ** 2, 0);
}

const scaled = (values: Float32Array, by: number) => values.map((value) => value * by);
const plain = learnableRows(640, D, 12);

describe("the default recipe", () => {
  it("gives the same held-out FVU for rows of any scale", async () => {
    const { fvu, notes } = await trained(memorySource(plain, D));
    for (const by of [1e-6, 1e-3, 1e6]) {
      const { fvu: other } = await trained(memorySource(scaled(plain, by), D));
      expect(Math.abs(other / fvu - 1)).toBeLessThan(0.01);
    }
    expect(notes.filter((note) => note.includes("Adam"))).toEqual([]);
  });

  it("says before training where an option makes the scale matter", async () => {
    const small = memorySource(scaled(plain, 1e-5), D);
    const none = await trained(small, { normalize: "none" });
    expect(none.notes.join("\n")).toMatch(/rows are not normalised.*--normalize scale trains alike at any scale/);
    const large = await trained(memorySource(scaled(plain, 1e6), D), { normalize: "none" });
    expect(large.notes.join("\n")).toMatch(/the biases hardly move/);
    expect((await trained(small, { normalize: "layer_norm" })).notes.join("\n")).toMatch(/layer_norm adds 0.00001/);
    expect((await trained(small, { eps: 0.1 })).notes.join("\n")).toMatch(/--eps 0.1 is not small/);
  });
});

describe("rows that were never written", () => {
  it("leave the held-out FVU of the real rows as it is", async () => {
    const values = new Float32Array(4 * plain.length);
    values.set(plain);
    const { fvu, run, notes, held, byHand } = await trained(memorySource(values, D), {}, false, values);
    expect(held.length).toBeGreaterThan(0);
    expect(held.every((row) => row < 640)).toBe(true);
    expect(fvu).toBeCloseTo(byHand, 5);
    expect(run.data.zeros).toBe(3 * 640);
    expect(notes).toContain(
      "1,920 of 2,560 rows are all zero, as rows that were never written are: they are left out of training and hold-out (--zero-rows keep would keep them)",
    );
    const kept = await trained(memorySource(values, D), { zeroRows: "keep" });
    expect(kept.run.data.zeros).toBe(0);
    expect(kept.held.some((row) => row >= 640)).toBe(true);
  });
});

describe("sinks", () => {
  const sunk = plain.map((value, at) => (Math.floor(at / D) % T === 0 ? value * 100 : value));
  const rare = plain.map((value, at) => (Math.floor(at / D) % 160 === 7 ? value * 150 : value));
  const sequence = T;

  it("are named with what leaves them out, and left out then", async () => {
    const loud = await trained(memorySource(sunk, D, { sequence }));
    expect(loud.notes.join("\n")).toMatch(
      /^position 0 has \d+ times the norm of other positions: --exclude-positions 0 leaves it out$/m,
    );
    const options = { excludePositions: [0] };
    const quiet = await trained(memorySource(sunk, D, { sequence }), options, false, sunk);
    expect(quiet.run.data.excluded).toBe(32);
    expect(quiet.notes.join("\n")).not.toMatch(/position/);
    expect(quiet.held.filter((row) => row % T === 0)).toEqual([]);
    expect(quiet.fvu).toBeCloseTo(quiet.byHand, 5);
  });

  it("of no position are counted", async () => {
    const loud = await trained(memorySource(rare, D, { sequence }), { holdout: 0 });
    expect(loud.notes.join("\n")).toMatch(
      /^4 rows above 10 times the median carry 99 % of the variance; --max-norm 10 leaves them out$/m,
    );
    const quiet = await trained(memorySource(rare, D, { sequence }), { holdout: 0, maxNorm: 10 });
    expect(quiet.run.data.above).toBe(4);
    expect(quiet.run.config.normLimit).toBeGreaterThan(0);
  });
});

describe("a run that leaves rows out", () => {
  const options: TrainOptions = { excludePositions: [0, 3], maxNorm: 10 };
  let data: string;
  let out: string;
  beforeAll(async () => {
    const values = plain.map((value, at) => {
      const row = Math.floor(at / D);
      return row % 37 === 5 ? value * 80 : row >= 100 && row < 140 ? 0 : value;
    });
    data = await writeActivations(join(folder, "acts.h5"), values, [32, T, D]);
    out = join(folder, "whole");
    await trainedOn(data, options, out);
  });

  it("resumes with the same bits", async () => {
    const cut = join(folder, "cut");
    await cp(out, cut, { recursive: true });
    for (const step of ["20", "30"]) await rm(join(cut, "checkpoints", `step-000000${step}`), { recursive: true });
    const run = await resume(cut);
    await (await run.finished).sae.close();
    expect(await checkpointOf(cut, "step-00000030")).toEqual(await checkpointOf(out, "step-00000030"));
  });

  it("records the norm, by which eval judges rows", async () => {
    const config = JSON.parse(await readFile(join(out, "config.json"), "utf8")) as Record<string, unknown>;
    expect(config).toMatchObject({ exclude_positions: [0, 3], max_norm: 10, zero_rows: "skip", normalize: "scale" });
    expect(config.norm_limit).toBeGreaterThan(0);
    const checkpoint = join(out, "checkpoints", "step-00000030");
    const held = await evalData(checkpoint, [], {});
    const all = await evalData(checkpoint, [data], {});
    const kept = await evalData(checkpoint, [data], { maxNorm: 0, zeroRows: "keep", excludePositions: "none" });
    const rows = (ranges: readonly { readonly count: number }[]) => ranges.reduce((sum, { count }) => sum + count, 0);
    expect(rows(kept.ranges)).toBe(640);
    expect(rows(all.ranges)).toBeLessThan(640 - 64 - 36);
    for (const { first, count } of held.ranges) {
      for (let row = first; row < first + count; row++) {
        expect([0, 3]).not.toContain(row % T);
        expect(row % 37).not.toBe(5);
        expect(row >= 100 && row < 140).toBe(false);
      }
    }
    for (const { source } of [held, all, kept]) await source.close();
  });

  it("is not resumed on a file that was written to since", async () => {
    const later = await writeActivations(join(folder, "later.h5"), plain, [32, T, D]);
    await expect(resume(out, { data: [later], tokens: 32 * 40 })).rejects.toThrow(
      /the data is not what the run was trained on: 0 rows are all zero or above --max-norm now, \d+ were then/,
    );
  });

  it("of before there was any of this is resumed and judged as it was", async () => {
    const old = join(folder, "old");
    await trainedOn(data, { normalize: "none", zeroRows: "keep" }, old);
    const path = join(old, "config.json");
    const {
      normalize: _,
      zero_rows: __,
      ...config
    } = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
    await writeFile(path, JSON.stringify(config));
    const run = await resume(old, { tokens: 32 * 40 });
    await (await run.finished).sae.close();
    expect(run.config).toMatchObject({ normalize: "none", zeroRows: "keep" });
  });
});
