/**
 * Known faults of the reference in how data is read, sampled and held out: rows 17, 21 and 22 of
 * the list.
 */

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Batch, batches, type Ring, START } from "../../src/data/batches.ts";
import { chooseRows } from "../../src/data/choose.ts";
import { concatSources } from "../../src/data/concat.ts";
import { excludedRows, RowSet } from "../../src/data/mask.ts";
import { openSource } from "../../src/data/open.ts";
import { Order, type OrderOptions } from "../../src/data/order.ts";
import type { Source } from "../../src/data/source.ts";
import { meanVariance, strideSample } from "../../src/data/statistics.ts";
import { createHdf5 } from "../../src/formats/hdf5-write.ts";
import { resume } from "../../src/train/resume.ts";
import { train } from "../../src/train/train.ts";
import { bytesOf, float32Of } from "../../src/util/bytes.ts";
import { SaettaError } from "../../src/util/errors.ts";
import { memorySource } from "./source.ts";
import { drawRows, mean } from "./support.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "saetta-faults-"));
});
afterAll(() => rm(dir, { recursive: true }));

/** Mean over the columns of the variance with divisor N, in two passes of float64. */
function plainVariance(rows: readonly (readonly number[])[]): number {
  const columns = rows[0].map((_, i) => rows.map((row) => row[i]));
  return mean(columns.map((column) => mean(column.map((value) => (value - mean(column)) ** 2))));
}

const small = {
  normalize: "none" as const,
  engine: "reference",
  latents: 8,
  k: 2,
  auxk: 0,
  batch: 16,
  excludeTokens: "none",
  seed: 3,
} as const;

async function mseScaleOf(checkpoint: string | undefined): Promise<number> {
  const state = JSON.parse(await readFile(join(checkpoint ?? "", "state.json"), "utf8")) as {
    progress: { mse_scale: number };
  };
  return state.progress.mse_scale;
}

async function writeFile(name: string, shape: readonly number[], values: Float32Array): Promise<string> {
  const path = join(dir, name);
  const file = await createHdf5(path, { datasets: [{ name: "hidden_states", dtype: "f32", shape }], attributes: {} });
  await file.write("hidden_states", 0, bytesOf(values));
  await file.close();
  return path;
}

describe("row 17", () => {
  it("row 17: mse_scale is one over the variance with divisor N, in float64, also for f16 rows with outliers", async () => {
    // Squares of the outliers overflow f16 (65504), and with 24 rows the divisors N and N - 1
    // differ by 4 %.
    const rows = drawRows(24, 3, 17).map((row, b) =>
      row.map((value, i) => (b % 6 === 0 && i === 1 ? (b % 4 === 0 ? 60000 : -52000) : Math.round(64 * value) / 64)),
    );
    const run = await train(memorySource(rows, { dtype: "f16" }), {
      ...small,
      batch: 8,
      holdout: 0,
      out: join(dir, "f16"),
    });
    const { checkpoint, report } = await run.finished;
    expect((await mseScaleOf(checkpoint)) * plainVariance(rows)).toBeCloseTo(1, 12);
    expect(report).toMatchObject({ skipped: 0, skipped_rows: 0, loss: expect.any(Number), mse: expect.any(Number) });
    expect(report?.loss).toBeGreaterThan(1e-3);
  });

  it("row 17: a mean far from 0 does not eat the variance", () => {
    const rows = drawRows(5000, 2, 18).map(([a, b]) => [Math.fround(a / 8 + 30000), Math.fround(b / 8 - 12345)]);
    const expected = plainVariance(rows);
    expect(expected).toBeGreaterThan(0.01);
    expect(meanVariance(Float32Array.from(rows.flat()), 2) / expected).toBeCloseTo(1, 9);
  });
});

/** The first number of every row of each batch, as an engine would find it in its ring. */
async function visited(source: Source, order: Order, sizes: readonly number[]): Promise<number[][]> {
  const rowBytes = source.dIn * 4;
  const ring = new Uint8Array(2 * order.windowRows * rowBytes);
  const found: number[][] = [];
  const left = [...sizes];
  const held: Ring = {
    memory: (bytes) => new Uint8Array(bytes),
    bring: (at, bytes) => {
      ring.set(bytes, at * rowBytes);
      return Promise.resolve([]);
    },
  };
  for await (const { rows } of batches(
    { source, order, ring: held, nonFinite: "stop" },
    START,
    () => left.shift() ?? 0,
  ) as AsyncIterable<Batch>) {
    const numbers = float32Of(ring);
    found.push(Array.from(rows, (row) => numbers[row * source.dIn]));
  }
  return found;
}

const ascending = (a: readonly number[]) => a.toSorted((x, y) => x - y);
const range = (count: number) => Array.from({ length: count }, (_, i) => i);
/** Row r begins with the number r. */
const numbered = (count: number, d = 4) => range(count).map((row) => [row, ...Array<number>(d - 1).fill(0.5)]);
/**
 * Blocks of 4 grains and windows of about 300 rows, so that a thousand rows have several of each.
 */
const orderOf = (source: Source, options: Partial<OrderOptions> = {}, excluded = new RowSet(source.rows)) =>
  new Order({ rows: source.rows, rowBytes: 16, grain: source.grain }, excluded, {
    seed: 5,
    shuffle: true,
    batch: 50,
    blockBytes: 16 * 100,
    windowBytes: 16 * 300,
    ...options,
  });

describe("row 21", () => {
  it("row 21: reads begin and end on the file's chunks and take many sequences at once", async () => {
    const reads: [first: number, count: number][] = [];
    const source = memorySource(numbered(1010), {
      grain: 24,
      sequence: 5,
      onRead: (first, count) => reads.push([first, count]),
    });
    await visited(source, orderOf(source), Array(20).fill(50));
    expect(reads.length).toBeGreaterThan(3);
    for (const [first, count] of reads) {
      expect({ first, into: first % 24, after: first + count === 1010 ? 0 : count % 24 }).toEqual({
        first,
        into: 0,
        after: 0,
      });
      expect(count === 96 || first + count === 1010, "four chunks, nineteen sequences").toBe(true);
    }
  });

  for (const windowBytes of [16 * 300, 16 * 5000]) {
    const what = windowBytes < 16 * 1000 ? "several windows" : "one window";
    it(`row 21: an epoch visits every row once, in an order drawn by seed and epoch (${what})`, async () => {
      const source = memorySource(numbered(1000), { grain: 10 });
      const orderFor = (seed: number, shuffle = true) => orderOf(source, { seed, shuffle, windowBytes });
      const all = await visited(source, orderFor(5), Array(60).fill(50));
      const epochs = [0, 1, 2].map((epoch) => all.slice(20 * epoch, 20 * (epoch + 1)).flat());
      for (const epoch of epochs) {
        expect(ascending(epoch)).toEqual(range(1000));
        const inPlace = epoch.filter((row, at) => row === at).length;
        const neighbours = epoch.filter((row, at) => row + 1 === epoch[at + 1]).length;
        expect({ inPlace: inPlace < 100, neighbours: neighbours < 100 }).toEqual({ inPlace: true, neighbours: true });
      }
      expect(epochs[1]).not.toEqual(epochs[0]);
      expect(await visited(source, orderFor(5), Array(60).fill(50))).toEqual(all);
      expect(await visited(source, orderFor(6), Array(60).fill(50))).not.toEqual(all);
      expect((await visited(source, orderFor(5, false), Array(20).fill(50))).flat()).toEqual(range(1000));
    });
  }

  it("row 21: a budget may be any number of epochs", async () => {
    const runOf = async (epochs: number) =>
      (await train(memorySource(drawRows(64, 4, 3)), { ...small, holdout: 0, epochs, out: false })).finished;
    expect(await runOf(1)).toMatchObject({ steps: 4, tokens: 64, report: { epoch: 1 } });
    expect(await runOf(2.5)).toMatchObject({ steps: 10, tokens: 160, report: { epoch: 2.5 } });
  });

  it("row 21: rows of excluded tokens are never visited, start tokens unless told otherwise", async () => {
    const tokens = range(1000).map((row) => (row % 10 === 0 ? 7 : row % 3));
    const source = memorySource(numbered(1000), { grain: 10, tokens, startToken: 7 });
    const rowsLeft = async (exclude: "start" | "none" | number[]) => {
      const order = orderOf(source, {}, await excludedRows(source, exclude));
      return ascending((await visited(source, order, [order.rowsPerEpoch])).flat());
    };
    expect(await rowsLeft("start")).toEqual(range(1000).filter((row) => row % 10 !== 0));
    expect(await rowsLeft([1, 2])).toEqual(range(1000).filter((row) => row % 10 === 0 || row % 3 === 0));
    expect(await rowsLeft("none")).toEqual(range(1000));
  });

  it("row 21: excluded rows stay out of a run: of its statistics, its steps and its evaluation", async () => {
    const tokens = range(640).map((row) => (row % 8 === 0 ? 7 : 1));
    const rows = drawRows(640, 4, 8).map((row, b) => (b % 8 === 0 ? row.map(() => 1e6) : row));
    const source = memorySource(rows, { tokens, startToken: 7, sequence: 8 });
    const run = await train(source, { ...small, excludeTokens: undefined, epochs: 2, out: join(dir, "masked") });
    expect(run.data.excluded).toBe(80);
    const { checkpoint, report } = await run.finished;
    expect(await mseScaleOf(checkpoint)).toBeGreaterThan(0.5);
    expect(report?.mse).toBeLessThan(10);
    expect(report?.holdout_mse).toBeLessThan(10);
  });

  it("row 21: files of different widths do not go together, whatever their sizes divide into", async () => {
    expect(() =>
      concatSources([memorySource(numbered(12, 4), { path: "a" }), memorySource(numbered(12, 6), { path: "b" })]),
    ).toThrow(/^a and b do not go together/);
    const wide = await writeFile("wide.h5", [3, 4, 6], new Float32Array(72));
    const narrow = await writeFile("narrow.h5", [3, 4, 4], new Float32Array(48));
    await expect(openSource([wide, narrow])).rejects.toThrow(SaettaError);
    const source = await openSource([wide]);
    expect({ rows: source.rows, dIn: source.dIn, sequence: source.sequence }).toEqual({
      rows: 12,
      dIn: 6,
      sequence: 4,
    });
    await source.close();
  });

  it("row 21: a run goes on with rows of its own width only, and starts only from an autoencoder of that width", async () => {
    const values = (count: number) => Float32Array.from(drawRows(count, 1, 4).flat());
    const wide = await writeFile("wide-run.h5", [8, 16, 6], values(768));
    const narrow = await writeFile("narrow-run.h5", [8, 24, 4], values(768));
    const out = join(dir, "width");
    const source = await openSource([wide]);
    await (await train(source, { ...small, out })).finished;
    await source.close();
    await expect(resume(out, { data: [narrow], epochs: 3 })).rejects.toThrow(/not what the run was trained on/);
    const other = await openSource([narrow]);
    await expect(train(other, { ...small, latents: undefined, k: undefined, init: out, out: false })).rejects.toThrow(
      /width 6.*width 4/,
    );
    await other.close();
  });
});

describe("row 22", () => {
  const source = memorySource(numbered(10_000));
  const sampleOf = async (seed: number, excluded = new RowSet(10_000)) => {
    const { values: sample } = await strideSample(source, { excluded, wanted: 640, seed });
    return Array.from({ length: sample.length / 4 }, (_, i) => sample[4 * i]);
  };

  it("row 22: the statistics sample is spread over the whole file, drawn by seed", async () => {
    const sample = await sampleOf(1);
    expect(sample).toHaveLength(640);
    expect(new Set(sample).size).toBe(640);
    for (let tenth = 0; tenth < 10; tenth++) {
      const inside = sample.filter((row) => Math.floor(row / 1000) === tenth).length;
      expect({ tenth, enough: inside >= 48 && inside <= 80 }).toEqual({ tenth, enough: true });
    }
    expect(await sampleOf(1)).toEqual(sample);
    expect(await sampleOf(2)).not.toEqual(sample);
  });

  it("row 22: rows that are held out are not in the sample", async () => {
    const { untrained, holdout } = await chooseRows(source, { excludeTokens: "none", holdout: 0.3, seed: 1 });
    const sample = await sampleOf(1, untrained);
    expect(sample.length).toBeGreaterThan(300);
    const isHeldOut = (row: number) => holdout.some(({ first, count }) => row >= first && row < first + count);
    expect(sample.filter(isHeldOut)).toEqual([]);
    expect((await sampleOf(1)).filter(isHeldOut).length).toBeGreaterThan(50);
  });

  it("row 22: a file whose head is unlike the rest: the start is that of the whole file", async () => {
    const rows = drawRows(4096, 3, 22).map((row, b) => (b < 512 ? row.map((value) => value / 1000) : row));
    const run = await train(memorySource(rows), {
      ...small,
      batch: 512,
      holdout: 0,
      statisticsRows: 512,
      out: join(dir, "head"),
    });
    const scale = await mseScaleOf((await run.finished).checkpoint);
    expect(scale * plainVariance(rows)).toBeGreaterThan(0.8);
    expect(scale * plainVariance(rows)).toBeLessThan(1.25);
  });

  it("row 22: held-out sequences are whole, of the share asked for, drawn by seed, and never trained on", async () => {
    const sequences = memorySource(numbered(4000), { grain: 10, sequence: 20 });
    const chosen = await chooseRows(sequences, { excludeTokens: "none", holdout: 0.25, seed: 4 });
    const heldOut = chosen.holdout.flatMap(({ first, count }) => range(count).map((i) => first + i));
    expect(chosen.holdout.every(({ first, count }) => first % 20 === 0 && count === 20)).toBe(true);
    expect(heldOut.length / 4000).toBeGreaterThan(0.15);
    expect(heldOut.length / 4000).toBeLessThan(0.35);
    const other = await chooseRows(sequences, { excludeTokens: "none", holdout: 0.25, seed: 5 });
    expect(other.holdout).not.toEqual(chosen.holdout);
    const order = orderOf(sequences, {}, chosen.untrained);
    const trained = (await visited(sequences, order, Array(order.rowsPerEpoch / 20).fill(20))).flat();
    expect(ascending([...trained, ...heldOut])).toEqual(range(4000));
  });

  it("row 22: a run is judged by held-out rows, and neither its statistics nor its steps see them", async () => {
    const options = { ...small, holdout: 0.2, epochs: 3 };
    const plain = drawRows(800, 4, 23);
    const { holdout } = await chooseRows(memorySource(plain, { sequence: 10 }), options);
    const rows = plain.map((row, b) =>
      holdout.some(({ first, count }) => b >= first && b < first + count) ? row.map(() => 1e6) : row,
    );
    const trained = rows.filter((row) => row[0] !== 1e6);
    const run = await train(memorySource(rows, { sequence: 10 }), { ...options, out: join(dir, "held-out") });
    expect(run.data).toMatchObject({ rowsPerEpoch: trained.length, heldOut: 800 - trained.length });
    const { checkpoint, report } = await run.finished;
    expect((await mseScaleOf(checkpoint)) * plainVariance(trained)).toBeCloseTo(1, 9);
    const lines = (await readFile(join(dir, "held-out", "metrics.jsonl"), "utf8")).trim().split("\n");
    for (const line of lines) expect((JSON.parse(line) as { mse: number }).mse).toBeLessThan(10);
    expect(report?.holdout_mse).toBeGreaterThan(1e8);
  });
});
