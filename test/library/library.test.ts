import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  fromRows,
  loadSae,
  NONE,
  openActivations,
  type Report,
  resume,
  SaettaError,
  train,
  UsageError,
} from "../../src/index.ts";
import { writeActivations } from "../support/activations.ts";
import { learnableRows, memorySource } from "../support/memory-source.ts";
import { checkpointOf, checkpointsOf, metricsOf } from "../support/runs.ts";

const D = 8;
const ROWS = 640;
const values = learnableRows(ROWS, D, 12);
const options = {
  engine: "reference",
  latents: 24,
  k: 3,
  auxk: 6,
  batch: 32,
  lr: 3e-3,
  deadTokens: 64,
  logEvery: 1,
  checkpointEvery: 5,
} as const;

function* chunks(size = 50): Generator<Float32Array> {
  for (let row = 0; row < ROWS; row += size) yield values.subarray(row * D, Math.min(ROWS, row + size) * D);
}
async function* awaited(): AsyncGenerator<Float32Array> {
  for (const chunk of chunks(7)) yield await Promise.resolve(chunk);
}
/** Ten chunks of 32 rows, then nothing more comes and nothing ends. */
async function* stuck(): AsyncGenerator<Float32Array> {
  for (let i = 0; i < 10; i++) yield values.subarray(i * 32 * D, (i + 1) * 32 * D);
  await new Promise(() => undefined);
}

let folder: string;
let made = 0;
const fresh = () => join(folder, `run-${made++}`);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-library-"));
  await writeActivations(join(folder, "acts.h5"), values, [32, 20, D]);
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

describe("a run in a few lines", () => {
  it("goes from a file to codes, as the design writes it", async () => {
    const out = fresh();
    const acts = await openActivations(join(folder, "acts.h5"));
    const run = await train(acts, { ...options, epochs: 50, out });
    for await (const s of run) if (s.fvu < 0.5) await run.stop();
    const { sae, reason, report } = await run.finished;
    expect(reason).toBe("stopped");
    expect(report!.fvu).toBeLessThan(0.5);
    const rows = values.subarray(0, 5 * D);
    const z = await (await loadSae(out, { engine: sae.engine })).encode(rows);
    expect(z).toMatchObject({ k: 3, latent: expect.any(Uint32Array), value: expect.any(Float32Array) });
    expect([z.latent.length, z.value.length]).toEqual([15, 15]);
    for (const [slot, latent] of z.latent.entries())
      expect(latent < 24 || (latent === NONE && z.value[slot] === 0)).toBe(true);
    expect(await sae.encode(rows)).toEqual(z);
    await sae.close();
    await acts.close();
  });

  it.each([
    ["raw weights", {}],
    ["their average", { ema: 0.9 }],
    ["rows that were scaled", { normalize: "scale", ema: 0.9 }],
    ["rows of unit norm", { normalize: "unit" }],
  ] as const)("gives the autoencoder that was saved, from its own memory (%s)", async (_, more) => {
    const out = fresh();
    await using run = await train(memorySource(values, D), { ...options, ...more, out });
    const { sae, checkpoint } = await run.finished;
    await using loaded = await loadSae(out, { engine: sae.engine });
    expect([sae.path, sae.weights, sae.found.step]).toEqual([checkpoint, loaded.weights, loaded.found.step]);
    const [mine, saved] = await Promise.all(
      [sae, loaded].map(async (each) => each.reconstructRaw(new Uint8Array(values.slice().buffer), "f32", ROWS)),
    );
    expect(mine).toEqual(saved);
  });

  it("writes nothing with out: false, and still gives the autoencoder", async () => {
    const before = await readdir(folder);
    const run = await train(memorySource(values, D), { ...options, ema: 0.9, out: false });
    const { sae, checkpoint } = await run.finished;
    expect([run.out, checkpoint, sae.path, sae.weights]).toEqual([undefined, undefined, undefined, "ema"]);
    const codes = await sae.encode(values);
    const back = await sae.decode(codes);
    let error = 0;
    let spread = 0;
    for (let at = 0; at < values.length; at++) {
      error += (back[at]! - values[at]!) ** 2;
      spread += values[at]! ** 2;
    }
    expect(error).toBeLessThan(0.5 * spread);
    await sae.close();
    await run.close();
    expect(await readdir(folder)).toEqual(before);
  });

  it("that is stopped before the first step of its average has the weights that it started from", async () => {
    const run = await train(memorySource(values, D), { ...options, ema: 0.9, out: false, signal: AbortSignal.abort() });
    const { sae, reason, steps } = await run.finished;
    expect([reason, steps, sae.weights]).toEqual(["stopped", 0, "raw"]);
    expect((await sae.encode(values.subarray(0, D))).value[0]).toBeGreaterThan(0);
    await sae.close();
  });
});

describe("the reports", () => {
  it("never wait for their reader, who gets the newest", async () => {
    await using run = await train(memorySource(values, D), { ...options, out: false });
    const seen: Report[] = [];
    for await (const report of run) {
      seen.push(report);
      await run.finished;
    }
    expect(seen.map(({ step }) => step)).toEqual([seen[0]!.step, run.steps]);
    expect(seen[0]!.step).toBeLessThan(run.steps);
  });

  it("compare as numbers what is not finite, which metrics.jsonl has as null", async () => {
    const out = fresh();
    const alike = values.slice().fill(1, 32 * D, 64 * D); // the second batch has no variance
    await using run = await train(memorySource(alike, D), { ...options, shuffle: false, holdout: 0, tokens: 64, out });
    let small = 0;
    const seen: Report[] = [];
    for await (const report of run) {
      seen.push(report);
      if (report.fvu < 0.1) small++;
    }
    expect(small).toBe(0);
    expect(Number.isFinite(seen.at(-1)!.fvu)).toBe(false);
    expect((await metricsOf(out)).at(-1)).toMatchObject({ fvu: null, loss: expect.any(Number) });
  });
});

describe("a run ends with a checkpoint", () => {
  it.each(["break", "throw", "abort", "close"] as const)("after %s", async (way) => {
    const out = fresh();
    const stopping = new AbortController();
    const run = await train(memorySource(values, D), { ...options, epochs: 1000, out, signal: stopping.signal });
    const reading = (async () => {
      for await (const { step } of run) {
        if (step < 3) continue;
        if (way === "break") break;
        if (way === "throw") throw new Error("enough");
        if (way === "abort") stopping.abort();
        if (way === "close") await run.close();
      }
    })();
    await (way === "throw" ? expect(reading).rejects.toThrow("enough") : reading);
    const { reason, steps, checkpoint, sae } = await run.finished;
    expect(reason).toBe("stopped");
    expect(checkpoint).toBe(join(out, "checkpoints", `step-${String(steps).padStart(8, "0")}`));
    expect(await checkpointsOf(out)).toContain(`step-${String(steps).padStart(8, "0")}`);
    if (way === "close") expect(() => sae.encode(values)).toThrow("the autoencoder was closed");
    await run.close();
  });

  it("and what fails is told by finished, not by close", async () => {
    const run = await train(memorySource(values, D, { broken: 600 }), {
      ...options,
      statisticsRows: 16,
      zeroRows: "keep", // or all rows are looked at before
      shuffle: false,
      holdout: 0,
      out: false,
    });
    await run.close();
    await expect(run.finished).rejects.toThrow("the disk is gone");
  });
});

describe("rows of a program", () => {
  it("that come anew whenever asked for are trained on as a file is", async () => {
    const [file, rows] = [fresh(), fresh()];
    const more = { ...options, epochs: 2.5 };
    await using first = await train(memorySource(values, D), { ...more, out: file });
    await using second = await train(fromRows(awaited, { dIn: D, rows: ROWS }), { ...more, out: rows });
    const ends = await Promise.all([first.finished, second.finished]);
    expect(second.data).toMatchObject({ description: "rows of the program: 640 x 8 f32", heldOut: first.data.heldOut });
    expect(await metricsOf(rows)).toEqual(await metricsOf(file));
    const name = `step-${String(ends[0].steps).padStart(8, "0")}`;
    expect(await checkpointOf(rows, name)).toEqual(await checkpointOf(file, name));
  });

  it("are gone on with by resume, which is given them again", async () => {
    const [whole, parts] = [fresh(), fresh()];
    const acts = () => fromRows(awaited, { dIn: D, rows: ROWS });
    await using all = await train(acts(), { ...options, epochs: 2, out: whole });
    const { steps } = await all.finished;
    await using begun = await train(acts(), { ...options, epochs: 2, out: parts });
    for await (const { step } of begun) if (step > 7) break;
    await expect(resume(parts)).rejects.toThrow(
      "was trained on rows of a program, not on files; give them again: resume(dir, { data: fromRows(...) })",
    );
    await expect(resume(parts, { data: fromRows(chunks(), { dIn: D, rows: ROWS }) })).rejects.toThrow(
      "a run cannot be resumed with rows that are read once",
    );
    await expect(resume(parts, { data: fromRows(awaited, { dIn: D, rows: 600 }) })).rejects.toThrow(
      "the data is not what the run was trained on",
    );
    await expect(resume(parts, { data: memorySource(values, D) })).rejects.toThrow(
      "the data is not what the run was trained on",
    );
    const source = acts();
    await using gone = await resume(parts, { data: source });
    await gone.finished;
    const name = `step-${String(steps).padStart(8, "0")}`;
    expect(await checkpointOf(parts, name)).toEqual(await checkpointOf(whole, name));
    await source.read(0, 1, new Uint8Array(D * 4)); // still the caller's
    await source.close();
  });

  it("that come once are trained on in their order, once, from the statistics of the first of them", async () => {
    const [file, rows] = [fresh(), fresh()];
    const more = { ...options, statisticsRows: 100 };
    await using run = await train(fromRows(awaited(), { dIn: D, rows: ROWS }), { ...more, out: rows });
    const { steps, reason } = await run.finished;
    expect([steps, reason, run.data.heldOut, run.config.shuffle]).toEqual([20, "done", 0, false]);
    // A file of the same rows, read in order, of whose rows the first were the sample.
    const plain = memorySource(values, D);
    const head = {
      ...plain,
      read: (first: number, count: number, into: Uint8Array) =>
        plain.read(sampling ? sampled(first, count) : first, count, into),
    };
    let sampling = true;
    let at = 0;
    const sampled = (_: number, count: number) => {
      at += count;
      if (at >= 100) sampling = false;
      return at - count;
    };
    await using same = await train(head, { ...more, zeroRows: "keep", shuffle: false, holdout: 0, out: file });
    await same.finished;
    expect(await metricsOf(rows)).toEqual(await metricsOf(file));
  });

  it.each([
    [{ shuffle: true }, "rows that are read once cannot be shuffled; give a function that returns the rows anew"],
    [{ holdout: 0.1 }, "rows that are read once cannot be held out; "],
    [{ epochs: 2 }, "rows that are read once cannot be trained on for 1280 rows, being 640; "],
    [{ tokens: 641 }, "rows that are read once cannot be trained on for 641 rows, being 640; "],
  ])("that come once are not %j", async (more, message) => {
    const trying = train(fromRows(chunks(), { dIn: D, rows: ROWS }), { ...options, ...more, out: false });
    await expect(trying).rejects.toThrow(message);
    await expect(trying).rejects.toBeInstanceOf(UsageError);
  });

  it("that come once and are not all finite end the run when they are used up", async () => {
    const spoilt = values.slice();
    spoilt[100 * D] = Number.NaN;
    await using run = await train(fromRows([spoilt], { dIn: D, rows: ROWS }), {
      ...options,
      nonFinite: "skip",
      out: false,
    });
    expect(await run.finished).toMatchObject({ reason: "done", steps: 19, report: { skipped_rows: 1 } });
    await using strict = await train(fromRows([spoilt], { dIn: D, rows: ROWS }), {
      ...options,
      statisticsRows: 16,
      out: false,
    });
    await expect(strict.finished).rejects.toThrow("fromRows, row 100: holds NaN or Inf");
  });

  it("that stop coming do not keep a run from stopping", async () => {
    const out = fresh();
    const source = fromRows(stuck(), { dIn: D, rows: 1_000_000 });
    const run = await train(source, { ...options, statisticsRows: 64, out });
    setTimeout(() => run.stop().catch(() => undefined), 50);
    const { reason, checkpoint } = await run.finished;
    // The steps whose rows had come, as far as it got.
    expect(reason).toBe("stopped");
    expect(checkpoint).toMatch(/checkpoints\/step-000000(0\d|10)$/);
    await run.close();
    await source.close();
    let calls = 0;
    const forHoldOut = fromRows(() => (calls++ === 0 ? awaited() : stuck()), { dIn: D, rows: ROWS });
    const held = await train(forHoldOut, { ...options, holdout: 0.5, out: false });
    expect(await held.stop()).toMatchObject({ reason: "stopped", steps: 0 });
    await held.close();
    const early = train(fromRows(stuck(), { dIn: D, rows: 1_000_000 }), {
      ...options,
      out: false,
      signal: AbortSignal.timeout(20),
    });
    await expect(early).rejects.toMatchObject({ name: "TimeoutError" });
  });

  it("that fail, fail the run with their own error, and what was learned is still there", async () => {
    const failing = function* () {
      yield* chunks();
      throw new RangeError("the model is gone");
    };
    const run = await train(fromRows(failing, { dIn: D, rows: ROWS + 1 }), {
      ...options,
      statisticsRows: 64,
      holdout: 0,
      shuffle: false,
      out: false,
    });
    await expect(run.finished).rejects.toBeInstanceOf(RangeError);
    await expect(run.finished).rejects.toThrow("the model is gone");
  });
});

describe("errors", () => {
  it("are those of the command line, with their exit codes", async () => {
    const missing = await openActivations(join(folder, "nowhere.h5")).catch((thrown: unknown) => thrown);
    expect(missing).toBeInstanceOf(SaettaError);
    expect(missing).toMatchObject({ exitCode: 1, where: join(folder, "nowhere.h5"), mend: expect.any(String) });
    const misspelt = await train(memorySource(values, D), { latens: 4 } as never).catch((thrown: unknown) => thrown);
    expect(misspelt).toBeInstanceOf(UsageError);
    expect(misspelt).toMatchObject({ exitCode: 2, message: "unknown option latens; did you mean latents?" });
  });
});

it("every disposable has close()", async () => {
  const acts = await openActivations(join(folder, "acts.h5"));
  const rows = fromRows(chunks, { dIn: D, rows: ROWS });
  const run = await train(acts, { ...options, tokens: 64, out: false });
  const { sae } = await run.finished;
  for (const each of [run, sae, sae.engine, acts, rows]) {
    expect(each[Symbol.asyncDispose]).toBeInstanceOf(Function);
    await each.close();
    await each.close();
  }
  expect((await readFile(join(folder, "acts.h5"))).length).toBeGreaterThan(0);
});
