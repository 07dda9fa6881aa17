/**
 * The cpu engine's product in bf16 against its product in float32, on activations of a language
 * model: the same codes and the same trained weights, bit for bit, and on some rows in a hundred
 * rounding alone would have selected others, so that this is no accident.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { rowsToFloat32 } from "../../src/data/convert.ts";
import { openSource } from "../../src/data/open.ts";
import { cpuPaths, createCpuEngine, type InstructionSet } from "../../src/engine/cpu/index.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { harvest } from "../../src/harvest/harvest.ts";
import { loadSae, type SparseCodes } from "../../src/inference/sae.ts";
import { train } from "../../src/train/train.ts";
import { bytesOf, float32Of } from "../../src/util/bytes.ts";
import { decodeBfloat16, encodeBfloat16 } from "../../src/util/float16.ts";
import { checkpointOf, metricsOf } from "../support/runs.ts";

/** Without a compiler there are none; src/engine/conformance.test.ts says so. */
const paths = await cpuPaths().catch((): readonly InstructionSet[] => []);
const bf16 = paths.filter((path) => path === "avx512_bf16" || path === "amx");

const [WIDTH, LATENTS, K, STEPS] = [256, 1024, 32, 100];
const LAST = `step-${String(STEPS).padStart(8, "0")}`;

/** A short run of the harvested rows, with some latents dead most of the time. */
async function trainOn(path: InstructionSet, acts: string, out: string): Promise<void> {
  vi.stubEnv("SAETTA_CPU", path);
  try {
    const source = await openSource([acts]);
    const options = {
      latents: LATENTS,
      k: K,
      auxk: 64,
      batch: 256,
      tokens: 256 * STEPS,
      deadTokens: 256,
      lr: 1e-3,
      logEvery: 10,
    };
    const run = await train(source, { ...options, threads: 2, engine: "cpu", checkpointEvery: 0, out });
    const { sae } = await run.finished;
    await sae.close();
    await source.close();
  } finally {
    vi.unstubAllEnvs();
  }
}

const bits = (codes: SparseCodes) => [Buffer.from(bytesOf(codes.latent)), Buffer.from(bytesOf(codes.value))];

/** The k latents of the largest pre-activation of a row, by number. */
function selected(x: Float32Array, encoder: Float32Array, bias: Float32Array): string {
  const values = Array.from({ length: LATENTS }, (_, j) => {
    let sum = bias[j];
    for (let i = 0; i < WIDTH; i++) sum += encoder[j * WIDTH + i] * x[i];
    return [sum, j] as const;
  });
  const top = values.sort(([a], [b]) => b - a).slice(0, K);
  return top
    .map(([, j]) => j)
    .sort((a, b) => a - b)
    .join();
}

function rounded(values: Float32Array): Float32Array {
  const half = new Uint16Array(values.length);
  encodeBfloat16(values, half);
  return decodeBfloat16(half);
}

describe.skipIf(bf16.length === 0)("the product in bf16, on activations of a language model,", () => {
  let folder: string;
  let rows: Float32Array;
  let acts: string;
  let exact: string;
  let sae: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "saetta-bf16-"));
    acts = join(folder, "acts.h5");
    const tensor = "/transformer/h.3/Add_1_output_0";
    await harvest({
      model: "examples/brown-gpt",
      text: "examples/brown.txt.gz",
      tensor,
      tokens: 4096,
      context: 256,
      out: acts,
    });
    const source = await openSource([acts]);
    const raw = new Uint8Array(source.rows * WIDTH * 2);
    await source.read(0, source.rows, raw);
    rows = rowsToFloat32(raw, "f16", source.rows * WIDTH);
    await source.close();
    exact = join(folder, "exact");
    await trainOn("avx512", acts, exact);
    sae = join(exact, "checkpoints", LAST);
  });
  afterAll(() => rm(folder, { recursive: true }));

  it.each(bf16)("gives the codes of the product in float32, %s", async (path) => {
    const codesOn = async (which: InstructionSet) => {
      await using engine = await createCpuEngine({ threads: 2, path: which });
      await using loaded = await loadSae(sae, { engine });
      expect(engine.description.includes("product in bf16")).toBe(which === path);
      return bits(await loaded.encode(rows));
    };
    const [expected, found] = [await codesOn("avx512"), await codesOn(path)];
    expect(expected[0].length).toBe((rows.length / WIDTH) * K * 4);
    for (const [i, bytes] of expected.entries())
      expect(Buffer.compare(found[i], bytes), i === 0 ? "latents" : "values").toBe(0);
  });

  it.each(bf16)("trains the same autoencoder, with dead latents, %s", async (path) => {
    const out = join(folder, path);
    await trainOn(path, acts, out);
    expect(await checkpointOf(out, LAST)).toEqual(await checkpointOf(exact, LAST));
    const metrics = await metricsOf(out);
    expect(metrics).toEqual(await metricsOf(exact));
    expect(metrics.some(({ dead, auxk_loss }) => (dead as number) > 0 && (auxk_loss as number) > 0)).toBe(true);
  });

  it("would select other latents on some rows in a hundred, were it more than a screen", async () => {
    const file = await openSafetensors(join(sae, "sae.safetensors"));
    const read = async (name: string) => float32Of(await file.read(name));
    const [encoder, bias, preBias] = [await read("encoder.weight"), await read("encoder.bias"), await read("b_dec")];
    await file.close();
    const coarse = rounded(encoder);
    const COUNT = 100;
    let others = 0;
    for (let row = 0; row < COUNT; row++) {
      const x = rows.subarray(row * 40 * WIDTH, (row * 40 + 1) * WIDTH).map((value, i) => value - preBias[i]);
      if (selected(x, encoder, bias) !== selected(rounded(x), coarse, bias)) others++;
    }
    expect(others).toBeGreaterThan(COUNT / 25);
  });
});
