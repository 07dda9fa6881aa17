import { cp, mkdtemp, readFile, rm, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeActivations } from "../../test/support/activations.ts";
import { whyNoCpu } from "../../test/support/engines.ts";
import { learnableRows } from "../../test/support/memory-source.ts";
import { checkpointOf, metricsOf } from "../../test/support/runs.ts";
import type { TrainOptions } from "../config.ts";
import { openSource } from "../data/open.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { openSafetensors } from "../formats/safetensors.ts";
import { loadSae } from "../inference/sae.ts";
import { evalReport } from "../metrics/report.ts";
import { normalizeRow, rowStatistics } from "../sae/math.ts";
import { bytesOf, float32Of, float64Of } from "../util/bytes.ts";
import { UsageError } from "../util/errors.ts";
import { resume } from "./resume.ts";
import { train } from "./train.ts";

const D = 8;
const KINDS = ["scale", "unit", "layer_norm"] as const;
const options: TrainOptions = {
  latents: 24,
  k: 3,
  auxk: 6,
  batch: 32,
  lr: 5e-3,
  deadTokens: 64,
  tokens: 32 * 40,
  ema: 0.9,
  logEvery: 1,
  evalEvery: 20,
  checkpointEvery: 16,
  keep: 100,
};

let folder: string;
let data: string;
let made = 0;
const fresh = () => join(folder, `run-${made++}`);
/** Rows with norms near 40 and sizes that differ from row to row. */
const rows = learnableRows(640, D, 12).map((value, at) => 7 * value * (1 + (Math.floor(at / D) % 5)));
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-normalize-"));
  data = await writeActivations(join(folder, "acts.h5"), rows, [32, 20, D]);
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

async function start(out: string, more: TrainOptions, stopAt?: number): Promise<string> {
  const source = await openSource([data]);
  try {
    const run = await train(source, { engine: "reference", ...options, ...more, out });
    for await (const { step } of run) if (step === stopAt) break;
    const { checkpoint, sae } = await run.finished;
    await sae.close();
    return checkpoint!;
  } finally {
    await source.close();
  }
}

async function goOn(run: string): Promise<string> {
  const { checkpoint, sae } = await (await resume(run)).finished;
  await sae.close();
  return checkpoint!;
}

/** What a reader of sparsify does with cfg.json and sae.safetensors, and nothing else. */
async function sparsify(path: string, x: Float32Array): Promise<{ codes: Map<number, number>[]; output: number[] }> {
  const {
    k,
    num_latents: n,
    d_in: d,
  } = JSON.parse(await readFile(join(path, "cfg.json"), "utf8")) as Record<string, number>;
  const file = await openSafetensors(join(path, "sae.safetensors"));
  const numbers = async (name: string) => {
    const bytes = await file.read(name);
    return file.tensors.get(name)?.dtype === "F64" ? float64Of(bytes) : Float64Array.from(float32Of(bytes));
  };
  const [W, b, Wdec, bdec] = [
    await numbers("encoder.weight"),
    await numbers("encoder.bias"),
    await numbers("W_dec"),
    await numbers("b_dec"),
  ];
  await file.close();
  const codes: Map<number, number>[] = [];
  const output: number[] = [];
  for (let row = 0; row * d! < x.length; row++) {
    const pre = Array.from({ length: n! }, (_, j) => {
      let sum = b[j]!;
      for (let i = 0; i < d!; i++) sum += W[j * d! + i]! * (x[row * d! + i]! - bdec[i]!);
      return { j, value: Math.max(0, sum) };
    });
    const top = pre.toSorted((p, q) => q.value - p.value).slice(0, k);
    codes.push(new Map(top.filter(({ value }) => value > 0).map(({ j, value }) => [j, value])));
    for (let i = 0; i < d!; i++)
      output.push(top.reduce((sum, { j, value }) => sum + value * Wdec[j * d! + i]!, bdec[i]!));
  }
  return { codes, output };
}

describe.each(KINDS)("--normalize %s", (normalize) => {
  let whole: string;
  let last: string;
  beforeAll(async () => {
    whole = fresh();
    last = await start(whole, { normalize });
  });

  it("learns, and says in its files what it does to rows", async () => {
    const metrics = await metricsOf(whole);
    expect(metrics.at(-1)!.holdout_fvu).toBeLessThan(0.6 * (metrics[0]!.fvu as number));
    const { saetta } = JSON.parse(await readFile(join(last, "cfg.json"), "utf8")) as {
      saetta: Record<string, unknown>;
    };
    expect(saetta.normalization).toBe(normalize);
    const files = Object.keys(await checkpointOf(whole, "step-00000040"));
    const own = normalize !== "scale";
    expect([files.includes("sae.safetensors"), files.includes("saetta.safetensors")]).toEqual([!own, own]);
    if (own) expect(saetta).not.toHaveProperty("normalization_factor");
    else {
      const norm = (row: number) => Math.hypot(...rows.subarray(row * D, (row + 1) * D));
      const mean = Array.from({ length: 640 }, (_, row) => norm(row)).reduce((a, b) => a + b) / 640;
      // Of the rows not held out.
      expect((saetta.normalization_factor as number) / (Math.sqrt(D) / mean)).toBeCloseTo(1, 1);
    }
  });

  it("sees normalised rows: mse_scale and the start are theirs", async () => {
    const { progress } = JSON.parse(await readFile(join(last, "state.json"), "utf8")) as {
      progress: { mse_scale: number };
    };
    const factor = (
      JSON.parse(await readFile(join(last, "cfg.json"), "utf8")) as { saetta: { normalization_factor?: number } }
    ).saetta.normalization_factor;
    const x = Float64Array.from(rows);
    for (let at = 0; at < x.length; at += D)
      normalizeRow(x.subarray(at, at + D), { kind: normalize, factor: factor ?? 1 });
    let variance = 0;
    for (let i = 0; i < D; i++) {
      const column = x.filter((_, at) => at % D === i);
      const mean = column.reduce((a, b) => a + b) / column.length;
      variance += column.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
    }
    expect(progress.mse_scale * variance).toBeCloseTo(1, 1);
    // The loss of the first step is near 1 for the scaled MSE: rows and mse_scale are of one space.
    expect((await metricsOf(whole))[0]!.loss).toBeLessThan(4);
  });

  it.each(
    (["reference", "cpu"] as const).filter((engine) => engine !== "cpu" || whyNoCpu() === undefined),
  )("goes on with the same bits (%s)", async (engine) => {
    const [straight, broken] = [fresh(), fresh()];
    await start(straight, { normalize, engine });
    await start(broken, { normalize, engine }, 21);
    await goOn(broken);
    expect(await checkpointOf(broken, "step-00000040")).toEqual(await checkpointOf(straight, "step-00000040"));
    expect(await metricsOf(broken)).toEqual(await metricsOf(straight));
  });

  it("cannot be changed when the run goes on, not even in its config", async () => {
    await expect(resume(whole, { normalize: "none" })).rejects.toThrow(
      `--normalize is "${normalize}" in this run and cannot be changed`,
    );
    const copy = fresh();
    await cp(whole, copy, { recursive: true });
    const config = join(copy, "config.json");
    await writeFile(
      config,
      (await readFile(config, "utf8")).replace(`"normalize": "${normalize}"`, '"normalize": "none"'),
    );
    await expect(resume(copy)).rejects.toThrow(
      `was trained with --normalize ${normalize}, but the config of the run says none`,
    );
  });

  it("encodes and decodes rows as they are", async () => {
    await using engine = createReferenceEngine();
    await using sae = await loadSae(last, { engine, weights: "raw" });
    const some = rows.slice(0, 40 * D);
    const codes = await sae.encode(some);
    expect(codes.rows === undefined).toBe(normalize === "scale");
    const { output } = await sae.reconstructRaw(bytesOf(some), "f32", 40);
    (await sae.decode(codes)).forEach((value, i) => {
      expect(Math.abs(value - output[i]!)).toBeLessThan(3e-6 * (1 + Math.abs(value)));
    });
    let err = 0;
    let all = 0;
    some.forEach((value, i) => {
      err += (output[i]! - value) ** 2;
      all += value ** 2;
    });
    expect(err / all).toBeLessThan(0.2);
    if (normalize === "scale") return;
    expect(() => sae.decode({ k: codes.k, latent: codes.latent, value: codes.value })).toThrow(UsageError);
    // The normalised rows themselves, in the space of which there is nothing to undo.
    const inside = await sae.decode({
      ...codes,
      rows: { mean: new Float64Array(40), size: new Float64Array(40).fill(1) },
    });
    for (let row = 0; row < 40; row++) {
      const { mean, size } = rowStatistics(some.subarray(row * D, (row + 1) * D), { kind: normalize, factor: 1 });
      for (let i = row * D; i < (row + 1) * D; i++) expect(inside[i]! * size + mean).toBeCloseTo(output[i]!, 3);
    }
    const constant = await sae.decode(await sae.encode(new Float32Array(D).fill(0.3)));
    expect([...constant]).toEqual(Array.from({ length: D }, () => Math.fround(0.3)));
  });

  it("is evaluated on normalised rows, and on rows as they are", async () => {
    await using engine = createReferenceEngine();
    const source = await openSource([data]);
    await using sae = await loadSae(whole, { engine });
    const { metrics } = await evalReport(sae, source, [{ first: 0, count: 200 }]);
    await source.close();
    expect(metrics.normalization).toBe(normalize);
    // By the plain definitions, from what inference gives.
    const x = rows.slice(0, 200 * D);
    const { codes, output } = await sae.reconstructRaw(bytesOf(x), "f32", 200);
    const by = { kind: normalize, factor: sae.description.saetta?.normalizationFactor ?? 1 };
    const inside = (values: Float32Array) =>
      Float64Array.from(values, (value, at) => {
        const row = Math.floor(at / D);
        return codes.rows === undefined ? value * by.factor : (value - codes.rows.mean[row]!) / codes.rows.size[row]!;
      });
    const fvu = (values: ArrayLike<number>, guesses: ArrayLike<number>) => {
      let spread = 0;
      let err = 0;
      for (let i = 0; i < D; i++) {
        const column = Array.from({ length: 200 }, (_, row) => values[row * D + i]!);
        const mean = column.reduce((a, b) => a + b) / 200;
        column.forEach((value, row) => {
          spread += (value - mean) ** 2;
          err += (value - guesses[row * D + i]!) ** 2;
        });
      }
      return { fvu: err / spread, mse: err / (200 * D) };
    };
    expect(metrics.rawFvu! / fvu(x, output).fvu).toBeCloseTo(1, 5);
    expect(metrics.fvu! / fvu(inside(x), inside(output)).fvu).toBeCloseTo(1, 5);
    expect(metrics.mse / fvu(inside(x), inside(output)).mse).toBeCloseTo(1, 5);
    if (normalize === "scale") expect(metrics.rawFvu! / metrics.fvu!).toBeCloseTo(1, 5);
    else expect(metrics.rawFvu! / metrics.fvu!).not.toBeCloseTo(1, 2);
  });

  it("is a start for a run with the same normalisation only", async () => {
    const source = await openSource([data]);
    for (const other of ["none", ...KINDS] as const) {
      if (other === normalize) continue;
      await expect(train(source, { ...options, init: whole, normalize: other, out: false })).rejects.toThrow(
        `${whole}: was trained with --normalize ${normalize}, not ${other}; leave out --normalize`,
      );
    }
    await source.close();
    const from = fresh();
    await start(from, { init: whole, lr: 1e-9, warmup: 0, ema: 0 });
    // The average, its decoder rows of norm 1 again, is as good to begin with as it was at the end.
    const fvu = async (sae: string) => {
      await using engine = createReferenceEngine();
      const again = await openSource([data]);
      await using loaded = await loadSae(sae, { engine });
      const { metrics } = await evalReport(loaded, again, [{ first: 0, count: 200 }]);
      await again.close();
      return metrics.fvu!;
    };
    expect((await fvu(from)) / (await fvu(whole))).toBeCloseTo(1, 4);
    expect((await metricsOf(from))[0]!.holdout_fvu ?? (await metricsOf(from)).at(-1)!.holdout_fvu).toBeLessThan(0.5);
  });
});

describe("--normalize scale", () => {
  it("is folded: by plain rules of sparsify the file gives the same on rows as they are", async () => {
    const last = await start(fresh(), { normalize: "scale" });
    await using engine = createReferenceEngine();
    await using sae = await loadSae(last, { engine, weights: "raw" });
    const some = rows.slice(0, 30 * D);
    const { codes, output } = await sae.reconstructRaw(bytesOf(some), "f32", 30);
    const plain = await sparsify(last, some);
    plain.output.forEach((value, i) => {
      expect(Math.abs(value - output[i]!)).toBeLessThan(1e-6 * (1 + Math.abs(value)));
    });
    plain.codes.forEach((expected, row) => {
      const slots = [0, 1, 2].filter((slot) => codes.value[3 * row + slot]! > 0).map((slot) => 3 * row + slot);
      expect(slots.map((slot) => codes.latent[slot])).toEqual([...expected.keys()]);
      for (const slot of slots) expect(codes.value[slot]! / expected.get(codes.latent[slot]!)!).toBeCloseTo(1, 6);
    });
    // In the units of the rows, whose norm is near 40, not of scaled ones.
    expect(Math.max(...codes.value)).toBeGreaterThan(10);
  });

  it("keeps the biases of training, too, which division would round", async () => {
    const last = await start(fresh(), { normalize: "scale" });
    const factor = (
      JSON.parse(await readFile(join(last, "cfg.json"), "utf8")) as { saetta: { normalization_factor: number } }
    ).saetta.normalization_factor;
    const trained = await openSafetensors(join(last, "optimizer.safetensors"));
    for (const [name, prefix] of [
      ["sae.safetensors", "train."],
      ["ema.safetensors", "train.ema."],
    ] as const) {
      const file = await openSafetensors(join(last, name));
      for (const bias of ["encoder.bias", "b_dec"]) {
        const [saved, before] = [float64Of(await file.read(bias)), float64Of(await trained.read(prefix + bias))];
        expect(saved.some((value) => value !== 0)).toBe(true);
        expect(saved).toEqual(before.map((value) => value / factor));
      }
      await file.close();
    }
    await trained.close();
  });
});

describe("weights of rows that must be normalised", () => {
  it("are not taken for others: neither by their name nor without it", async () => {
    const run = fresh();
    const path = await start(run, { normalize: "unit", tokens: 64 });
    const copy = fresh();
    await cp(path, copy, { recursive: true });
    await unlink(join(copy, "manifest.json"));
    await using engine = createReferenceEngine();
    await using sae = await loadSae(join(copy, "saetta.safetensors"), { engine });
    expect(sae.description.saetta?.normalization).toBe("unit");
    await cp(join(copy, "saetta.safetensors"), join(copy, "sae.safetensors"));
    await unlink(join(copy, "saetta.safetensors"));
    await expect(loadSae(copy, { engine })).rejects.toThrow(
      "cfg.json: says that rows were normalised by unit, so the weights must be in saetta.safetensors, which is not there",
    );
  });
});
