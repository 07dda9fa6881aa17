import { copyFile, mkdir, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { described, dimsOf, newParams, type TopkSizes } from "../../test/topk.ts";
import { saveCheckpoint } from "../checkpoint/save.ts";
import { COUNTERS, type Engine, NONE, type Params, type State } from "../engine/engine.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { type SafetensorsPart, writeSafetensors } from "../formats/safetensors.ts";
import { CORE_PARAMS, type PerParam } from "../sae/params.ts";
import { bytesOf } from "../util/bytes.ts";
import { loadSae } from "./sae.ts";

/**
 * Latents 0, 1, 2 read the three inputs; latent 3 is always off. Decoder rows are unit vectors, so
 * values come back as they were.
 */
const shape: TopkSizes = { d: 3, n: 4, k: 2, auxk: 0 };
const weights: PerParam<number[]> = {
  encoder: [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
  latentBias: [0, 0, 0, -1],
  decoder: [1, 0, 0, 0, 1, 0, 0, 0, 1, 0.6, 0.8, 0],
  preBias: [10, 20, 30],
};

let folder: string;
let engine: Engine;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-sae-"));
  engine = createReferenceEngine();
});
afterEach(async () => {
  await engine[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

function paramsOf(values?: PerParam<number[]>, factor = 1): Params {
  const params = newParams(engine, shape);
  for (const name of values === undefined ? [] : CORE_PARAMS) {
    engine.write(params[name], bytesOf(Float64Array.from(values![name], (value) => value * factor)));
  }
  return params;
}

/** A checkpoint; `ema` holds other weights, as they are after `updates` steps of decay 0.9. */
async function save(
  step: number,
  ema?: { readonly values: PerParam<number[]>; readonly updates: number },
): Promise<string> {
  const counters = engine.alloc("f64", [COUNTERS.length]);
  engine.write(counters, bytesOf(Float64Array.from(COUNTERS, (name) => (name === "ema" ? (ema?.updates ?? 0) : step))));
  const average = ema === undefined ? {} : { ema: paramsOf(ema.values, 1 - 0.9 ** ema.updates) };
  const state: State = {
    params: paramsOf(weights),
    m: paramsOf(),
    v: paramsOf(),
    ...average,
    age: engine.alloc("u32", [shape.n]),
    counters,
  };
  const saetta = {
    version: "0.1.0",
    engine: "reference",
    normalization: "none",
    ...(ema === undefined ? {} : { emaDecay: 0.9 }),
  } as const;
  return saveCheckpoint(folder, { engine, state, step, description: { ...described(shape), saetta }, progress: {} });
}

async function foreign(cfg: object, parts: readonly SafetensorsPart[]): Promise<string> {
  const path = join(folder, "foreign");
  await mkdir(path, { recursive: true });
  await writeFile(join(path, "cfg.json"), JSON.stringify(cfg));
  const pieces: Uint8Array[] = [];
  await writeSafetensors(async (bytes) => void pieces.push(bytes), parts);
  await writeFile(join(path, "sae.safetensors"), Buffer.concat(pieces));
  return path;
}

const cfg = { activation: "topk", expansion_factor: 1, num_latents: 4, k: 2, d_in: 3 };
const f32 = (name: string, shape: readonly number[], values: readonly number[]): SafetensorsPart => ({
  name,
  dtype: "F32",
  shape,
  bytes: async () => bytesOf(Float32Array.from(values)),
});
const sparsify = (change: Partial<typeof weights> = {}): SafetensorsPart[] => {
  const all = { ...weights, ...change };
  return [
    f32("encoder.weight", [4, 3], all.encoder),
    f32("encoder.bias", [4], all.latentBias),
    f32("W_dec", [4, 3], all.decoder),
    f32("b_dec", [3], all.preBias),
  ];
};

describe("an autoencoder", () => {
  it("encodes to the strongest k and decodes with the bias", async () => {
    await save(1);
    await using sae = await loadSae(folder, { engine });
    expect(sae).toMatchObject({ dims: dimsOf(shape), k: shape.k, weights: "raw" });
    const codes = await sae.encode(Float32Array.of(11, 25, 31.5, 10, 20.5, 29));
    expect(codes.k).toBe(2);
    expect([...codes.latent]).toEqual([1, 2, 1, NONE]);
    expect([...codes.value]).toEqual([5, 1.5, 0.5, 0]);
    expect([...(await sae.decode(codes))]).toEqual([10, 25, 31.5, 10, 20.5, 30]);
  });

  it("takes raw rows of every dtype, and gives codes and reconstruction at once", async () => {
    await save(1);
    await using sae = await loadSae(folder, { engine });
    const f16 = Uint16Array.of(0x4980, 0x4e40, 0x4fe0); // 11, 25, 31.5
    const bf16 = Uint16Array.of(0x4130, 0x41c8, 0x41fc);
    const rows = [11, 25, 31.5];
    for (const [dtype, raw] of [
      ["f16", bytesOf(f16)],
      ["bf16", bytesOf(bf16)],
      ["f32", bytesOf(Float32Array.from(rows))],
      ["f64", bytesOf(Float64Array.from(rows))],
    ] as const) {
      const { codes, output } = await sae.reconstructRaw(raw, dtype, 1);
      expect([dtype, ...codes.latent, ...codes.value, ...output]).toEqual([dtype, 1, 2, 5, 1.5, 10, 25, 31.5]);
    }
  });

  it("gives each row the same codes however many are encoded together", async () => {
    await save(1);
    await using sae = await loadSae(folder, { engine });
    const count = 2500; // more than go through the engine at once, and no power of two
    const rows = Float32Array.from({ length: count * 3 }, (_, i) => 10 * ((i % 3) + 1) + (((i * 7919) % 31) - 15) / 4);
    const together = await sae.encode(rows);
    const back = await sae.decode(together);
    for (const row of [0, 1, 2047, 2048, 2049, 2499]) {
      const alone = await sae.encode(rows.subarray(row * 3, row * 3 + 3));
      expect([...together.latent.subarray(row * 2, row * 2 + 2)]).toEqual([...alone.latent]);
      expect([...together.value.subarray(row * 2, row * 2 + 2)]).toEqual([...alone.value]);
      expect([...back.subarray(row * 3, row * 3 + 3)]).toEqual([...(await sae.decode(alone))]);
    }
    expect((await sae.encode(new Float32Array(0))).latent.length).toBe(0);
  });

  it("serves calls that overlap", async () => {
    await save(1);
    await using sae = await loadSae(folder, { engine });
    const values = await Promise.all(
      [1, 2, 3, 4, 5].map(async (v) => (await sae.encode(Float32Array.of(10 + v, 20, 30))).value[0]),
    );
    expect(values).toEqual([1, 2, 3, 4, 5]);
  });

  it("refuses rows that are no rows, and goes on after a row that is not finite", async () => {
    await save(1);
    const sae = await loadSae(folder, { engine });
    expect(() => sae.encode(new Float32Array(4))).toThrow("4 numbers are no whole rows of 3, the autoencoder's inputs");
    await expect(sae.encodeRaw(new Uint8Array(13), "f32", 1)).rejects.toThrow("13 bytes are not 1 rows of 3 f32");
    await expect(sae.encode(Float32Array.of(10, 20, 30, 1, Number.NaN, 2, 1, 1, 1, 1, 1, Number.NaN))).rejects.toThrow(
      "is not finite",
    );
    expect([...(await sae.encode(Float32Array.of(11, 25, 31, 10, 20, 30, 10, 20, 30))).value]).toEqual([
      5, 1, 0, 0, 0, 0,
    ]);
    expect(() => sae.decode({ k: 2, latent: Uint32Array.of(4, NONE), value: Float32Array.of(1, 0) })).toThrow(
      "latent 4 is in the codes, but there are only 4",
    );
    expect(() => sae.decode({ k: 2, latent: Uint32Array.of(1), value: Float32Array.of(1) })).toThrow(
      "no whole rows of 2",
    );
    await sae.close();
    expect(() => sae.encode(new Float32Array(3))).toThrow("the autoencoder was closed");
    await sae.close();
  });
});

describe("the average of the weights", () => {
  const values = { ...weights, preBias: [11, 20, 30], decoder: [0.5, 0, 0, 0, 0.25, 0, 0, 0, 1, 0.3, 0.4, 0] };

  it("is used when there is one: bias-corrected, decoder rows of norm 1", async () => {
    await save(3, { values, updates: 3 });
    await using sae = await loadSae(folder, { engine });
    expect(sae.weights).toBe("ema");
    const codes = await sae.encode(Float32Array.of(15, 20, 30));
    expect(codes.latent[0]).toBe(0);
    expect(codes.value[0]).toBeCloseTo(4, 6);
    expect((await sae.decode(codes))[0]).toBeCloseTo(15, 5);
    await using short = await loadSae(folder, { engine, unitDecoder: false });
    expect((await short.decode(codes))[0]).toBeCloseTo(13, 5);
  });

  it("is left alone when raw weights are asked for", async () => {
    await save(3, { values, updates: 3 });
    await using sae = await loadSae(folder, { engine, weights: "raw" });
    expect(sae.weights).toBe("raw");
    expect((await sae.encode(Float32Array.of(15, 20, 30))).value[0]).toBe(5);
  });

  it("cannot be used where none was kept, or before the first step", async () => {
    await save(1);
    await expect(loadSae(folder, { engine, weights: "ema" })).rejects.toThrow(
      "no running average of the weights was kept; use --weights raw, or train with --ema",
    );
    await save(2, { values, updates: 0 });
    await expect(loadSae(folder, { engine })).rejects.toThrow("the average holds no step yet; use --weights raw");
  });
});

describe("loading", () => {
  it("takes the newest whole checkpoint of a run, or the one named", async () => {
    const first = await save(1);
    const second = await save(2);
    {
      await using sae = await loadSae(folder, { engine });
      expect(sae.path).toBe(second);
    }
    await truncate(join(second, "sae.safetensors"), 100);
    {
      await using sae = await loadSae(folder, { engine });
      expect(sae.path).toBe(first);
      expect(sae.found.refusals.map(({ path }) => path)).toEqual([second]);
    }
    await expect(loadSae(second, { engine })).rejects.toThrow("sae.safetensors: damaged: has 100 bytes");
    await truncate(join(first, "cfg.json"), 0);
    await expect(loadSae(folder, { engine })).rejects.toThrow(second);
  });

  it("reads sparsify's folder, or a file in it", async () => {
    const path = await foreign(cfg, sparsify());
    for (const each of [path, join(path, "sae.safetensors"), join(path, "cfg.json")]) {
      await using sae = await loadSae(each, { engine });
      expect(sae.description.saetta).toBeUndefined();
      expect([...(await sae.encode(Float32Array.of(11, 25, 31.5))).value]).toEqual([5, 1.5]);
    }
  });

  it.each<[string, object, SafetensorsPart[], string]>([
    [
      "a missing tensor",
      cfg,
      sparsify().slice(0, 3),
      'has no tensor "b_dec", only "encoder.weight", "encoder.bias", "W_dec"',
    ],
    [
      "a tensor of another shape",
      { ...cfg, num_latents: 5 },
      sparsify(),
      'tensor "encoder.weight" is [4, 3], but cfg.json says [5, 3]',
    ],
    [
      "a weight that is not finite",
      cfg,
      sparsify({ latentBias: [0, 0, Number.NaN, 0] }),
      'tensor "encoder.bias", element 2 is not finite',
    ],
    [
      "a transcoder that lacks its skip connection",
      { ...cfg, transcode: true, skip_connection: true },
      sparsify(),
      "W_skip",
    ],
  ])("refuses %s", async (_, config, parts, message) => {
    await expect(loadSae(await foreign(config, parts), { engine })).rejects.toThrow(message);
  });

  it("says what is missing", async () => {
    await expect(loadSae(join(folder, "nowhere"), { engine })).rejects.toThrow(
      `${join(folder, "nowhere")}: there is no such file or folder`,
    );
    await expect(loadSae(folder, { engine })).rejects.toThrow(
      "holds no autoencoder: no checkpoints, and no cfg.json with sae.safetensors",
    );
    await mkdir(join(folder, "checkpoints"));
    await expect(loadSae(folder, { engine })).rejects.toThrow("the run has no checkpoint yet");
    const path = await foreign(cfg, sparsify());
    await copyFile(join(path, "cfg.json"), join(path, "other.json"));
    await expect(loadSae(join(path, "other.json"), { engine })).rejects.toThrow("is no autoencoder that Saetta reads");
    expect((await readFile(join(path, "cfg.json"))).length).toBeGreaterThan(0);
  });
});
