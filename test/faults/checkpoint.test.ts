/**
 * Known faults of the reference in what a run leaves behind: rows 11 (the average, as it is used)
 * and 23 of the list.
 */

import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openSource } from "../../src/data/open.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { createHdf5 } from "../../src/formats/hdf5-write.ts";
import { loadSae } from "../../src/inference/sae.ts";
import type { Report } from "../../src/run-files/metrics.ts";
import { resume } from "../../src/train/resume.ts";
import { train } from "../../src/train/train.ts";
import { bytesOf } from "../../src/util/bytes.ts";
import { whyNoCpu } from "../support/engines.ts";
import { dimsOf } from "../topk.ts";
import { drawRows, length, type Plain, plainForward } from "./support.ts";

const shape = { d: 6, n: 32, k: 2, auxk: 4 };
const rows = drawRows(600, shape.d, 51);
/**
 * Everything that a state can hold is in use: the average, the clip, dead latents, a schedule,
 * epochs that end within a batch, two windows of logs.
 */
const options = {
  latents: shape.n,
  k: shape.k,
  auxk: shape.auxk,
  batch: 32,
  ema: 0.9,
  clip: 1,
  lr: 0.01,
  deadTokens: 20,
  epochs: 2.2,
  seed: 5,
  checkpointEvery: 4,
  evalEvery: 6,
  logEvery: 1,
  keep: 50,
  threads: 2,
} as const;

let dir: string;
let data: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "saetta-faults-"));
  data = join(dir, "acts.h5");
  const file = await createHdf5(data, {
    datasets: [{ name: "hidden_states", dtype: "f32", shape: [30, 20, shape.d] }],
    attributes: {},
  });
  await file.write("hidden_states", 0, bytesOf(Float32Array.from(rows.flat())));
  await file.close();
});
afterAll(() => rm(dir, { recursive: true }));

async function runInto(out: string, engine: "reference" | "cpu", stopAfter = Number.POSITIVE_INFINITY) {
  const source = await openSource([data]);
  try {
    const run = await train(source, { ...options, engine, out });
    for await (const { step } of run) if (step >= stopAfter) break;
    return await run.finished;
  } finally {
    await source.close();
  }
}

/** A safetensors file: 8 bytes of header length, a JSON header, the data. */
async function tensorsOf(path: string): Promise<Record<string, number[]>> {
  const file = await readFile(path);
  const size = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + size)) as Record<
    string,
    { dtype: string; data_offsets: [number, number] }
  >;
  const { __metadata__: _, ...entries } = header;
  return Object.fromEntries(
    Object.entries(entries).map(([name, { dtype, data_offsets }]) => {
      const [begin, end] = data_offsets.map((at) => 8 + size + at);
      const bytes = Uint8Array.from(file.subarray(begin, end)).buffer;
      return [name, Array.from(dtype === "F64" ? new Float64Array(bytes) : new Float32Array(bytes))];
    }),
  );
}

function plainOf(tensors: Record<string, number[]>): Plain {
  const table = (values: readonly number[]) =>
    Array.from({ length: shape.n }, (_, j) => values.slice(j * shape.d, (j + 1) * shape.d));
  return {
    encoder: table(tensors["encoder.weight"]),
    latentBias: tensors["encoder.bias"],
    decoder: table(tensors.W_dec),
    preBias: tensors.b_dec,
  };
}

/** What a run logged, apart from the time it took. */
async function logOf(out: string): Promise<Omit<Report, "elapsed_s" | "tokens_per_second">[]> {
  const lines = (await readFile(join(out, "metrics.jsonl"), "utf8")).trim().split("\n");
  return lines.map((line) => {
    const { elapsed_s: _, tokens_per_second: __, ...report } = JSON.parse(line) as Report;
    return report;
  });
}

const testedRows = rows.slice(0, 25);
const someRows = Float32Array.from(testedRows.flat());

describe("row 23", () => {
  for (const engine of ["reference", "cpu"] as const) {
    it(`row 23: a run taken up from its newest checkpoint gives the bits of one that never stopped (${engine})`, async (context) => {
      const reason = engine === "cpu" ? whyNoCpu() : undefined;
      if (reason !== undefined) context.skip(reason);
      const [whole, broken, moved] = ["whole", "broken", "moved"].map((name) => join(dir, `${name}-${engine}`));
      const uninterrupted = await runInto(whole, engine);
      const stopped = await runInto(broken, engine, 18);
      expect(uninterrupted.reason).toBe("done");
      expect(stopped.reason).toBe("stopped");
      expect(stopped.steps).toBeLessThan(uninterrupted.steps);
      // Nothing in memory, and no path of the run, is needed: the folder goes elsewhere with its
      // newest checkpoint alone.
      const newest = stopped.checkpoint ?? "";
      await cp(broken, moved, { recursive: true, filter: (path) => !/step-\d+/.test(path) || path.startsWith(newest) });
      await rm(broken, { recursive: true });
      const resumed = await (await resume(moved)).finished;
      expect({ ...resumed, report: undefined, checkpoint: undefined, sae: undefined }).toEqual({
        ...uninterrupted,
        report: undefined,
        checkpoint: undefined,
        sae: undefined,
      });
      for (const file of ["sae.safetensors", "ema.safetensors", "optimizer.safetensors", "cfg.json"]) {
        const [a, b] = await Promise.all(
          [resumed, uninterrupted].map(({ checkpoint }) => readFile(join(checkpoint ?? "", file))),
        );
        expect(a.equals(b), file).toBe(true);
      }
      expect(await logOf(moved)).toEqual(await logOf(whole));
      expect(
        (await logOf(whole)).some(({ dead }) => dead > 0),
        "latents were dead on the way",
      ).toBe(true);
    });
  }

  it("row 23: a checkpoint folder by itself says what it holds: shape and k, and it encodes", async () => {
    const { checkpoint } = await runInto(join(dir, "alone"), "reference");
    const alone = join(dir, "only-this");
    await cp(checkpoint ?? "", alone, { recursive: true });
    await rm(join(dir, "alone"), { recursive: true });
    const sae = await loadSae(alone, { engine: createReferenceEngine(), weights: "raw" });
    expect(sae).toMatchObject({ dims: dimsOf(shape), k: shape.k });
    const weights = plainOf(await tensorsOf(join(alone, "sae.safetensors")));
    const { live, pre } = plainForward(weights, testedRows, shape, []);
    const { k, latent, value } = await sae.encode(someRows);
    expect(k).toBe(shape.k);
    for (const [b, on] of live.entries()) {
      expect(Array.from(latent.subarray(b * k, b * k + on.length))).toEqual(on);
      for (const [slot, j] of on.entries()) expect(value[b * k + slot]).toBeCloseTo(pre[b][j], 5);
    }
    expect(live.some((on) => on.length === shape.k)).toBe(true);

    // A new run starts from it, with its k and width.
    const source = await openSource([data]);
    const run = await train(source, { engine: "reference", init: alone, batch: 32, out: false });
    expect(run.config).toMatchObject({ latents: shape.n, k: shape.k });
    await run.finished;
    await source.close();
  });
});

describe("row 11", () => {
  it("row 11: the average is used corrected by 1 - m^t, with decoder rows of norm 1", async () => {
    const out = join(dir, "average");
    const { checkpoint, steps } = await runInto(out, "reference");
    const stored = plainOf(await tensorsOf(join(checkpoint ?? "", "ema.safetensors")));
    const share = 1 - 0.9 ** steps;
    const corrected = (values: readonly number[]) => values.map((value) => value / share);
    const average: Plain = {
      encoder: stored.encoder.map(corrected),
      latentBias: corrected(stored.latentBias),
      decoder: stored.decoder.map((row) => row.map((value) => value / length(row))),
      preBias: corrected(stored.preBias),
    };
    const short = stored.decoder.map((row) => length(corrected(row)));
    expect(Math.min(...short), "averaging has shortened rows").toBeLessThan(0.999);

    const { xHat } = plainForward(average, testedRows, shape, []);
    const sae = await loadSae(out, { engine: createReferenceEngine() });
    expect(sae.weights).toBe("ema");
    const output = await sae.decode(await sae.encode(someRows));
    xHat.flat().forEach((value, i) => {
      expect(output[i]).toBeCloseTo(value, 5);
    });

    // As averaging left them, for those who want to measure what the norm changes.
    const left = plainForward(
      { ...average, decoder: stored.decoder.map(corrected) },
      testedRows,
      shape,
      [],
    ).xHat.flat();
    const unchanged = await loadSae(out, { engine: createReferenceEngine(), unitDecoder: false });
    const without = await unchanged.decode(await unchanged.encode(someRows));
    left.forEach((value, i) => {
      expect(without[i]).toBeCloseTo(value, 5);
    });
    expect(Math.max(...left.map((value, i) => Math.abs(value - output[i])))).toBeGreaterThan(1e-3);
  });
});
