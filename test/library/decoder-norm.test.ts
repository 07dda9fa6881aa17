/**
 * Decoder rows that training leaves free keep their lengths: in the average of the weights, where
 * it is evaluated, loaded and given to the caller. With a decay of nearly 0 the average is the
 * weights themselves, so both must compute the same.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fromRows, loadSae, pairSources, type Report, type Sae, train } from "../../src/index.ts";
import { learnableRows } from "../support/memory-source.ts";

const [D, ROWS, LATENTS] = [8, 640, 24];
const rows = (seed: number) => {
  const values = learnableRows(ROWS, D, seed);
  return fromRows(() => [values], { dIn: D, rows: ROWS });
};
const options = {
  ...({ engine: "reference", normalize: "none" } as const),
  ...{ latents: LATENTS, k: 3, auxk: 0, batch: 32, lr: 0.05, holdout: 0.1, ema: 1e-7, logEvery: 1, evalEvery: 0 },
};

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-decoder-norm-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

/** The decoder's rows [LATENTS, D]. */
async function decoderOf(sae: Sae): Promise<readonly number[]> {
  const decoded = async (value: number) => {
    const codes = { k: 1, latent: Uint32Array.from({ length: LATENTS }, (_, j) => j) };
    return sae.decode({ ...codes, value: new Float32Array(LATENTS).fill(value) }, new Float32Array(LATENTS * D));
  };
  const [one, none] = [await decoded(1), await decoded(0)];
  return Array.from(one, (value, i) => value - none[i]!);
}

function lengths(decoder: readonly number[]): readonly number[] {
  return Array.from({ length: LATENTS }, (_, j) => Math.hypot(...decoder.slice(j * D, (j + 1) * D)));
}

describe.each([
  ["a transcoder", () => pairSources(rows(12), rows(13)), {}, false],
  ["a transcoder with --decoder-norm unit", () => pairSources(rows(12), rows(13)), { decoderNorm: "unit" }, true],
  ["an autoencoder", () => rows(12), {}, true],
  ["an autoencoder with --decoder-norm free", () => rows(12), { decoderNorm: "free" }, false],
] as const)("%s", (_, open, more, isUnit) => {
  it(`has an average whose decoder rows are ${isUnit ? "of norm 1" : "free"}`, async () => {
    const source = await open();
    const out = await mkdtemp(join(folder, "run-"));
    const run = await train(source, { ...options, ...more, out });
    const reports: Report[] = [];
    for await (const report of run) reports.push(report);
    const { sae } = await run.finished;
    await source.close();
    const { holdout_mse: raw, holdout_mse_ema: average } = reports.at(-1)!;
    expect(Math.abs(average! / raw! - 1)).toBeLessThan(1e-5);

    const decoder = await decoderOf(sae);
    expect(sae.weights).toBe("ema");
    await sae.close();
    const norms = lengths(decoder);
    if (isUnit) for (const norm of norms) expect(norm).toBeCloseTo(1, 5);
    else expect(Math.max(...norms.map((norm) => Math.abs(norm - 1)))).toBeGreaterThan(0.1);
    for (const weights of ["ema", "raw"] as const) {
      const loaded = await loadSae(out, { weights });
      const found = await decoderOf(loaded);
      await loaded.close();
      for (const [i, value] of found.entries()) expect(Math.abs(value - decoder[i]!), weights).toBeLessThan(1e-4);
    }
  });
});
