import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { countRows } from "../data/holdout.ts";
import { openSource } from "../data/open.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { reportWithFeatures } from "../features/in-text.ts";
import { createHdf5 } from "../formats/hdf5-write.ts";
import { loadSae } from "../inference/sae.ts";
import { train } from "../train/train.ts";
import { bytesOf } from "../util/bytes.ts";
import { Rng } from "../util/rng.ts";
import { evalData } from "./eval-data.ts";

const SEQUENCES = 40;
const T = 10;
const D = 4;

let folder: string;
let acts: string;
let out: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-eval-command-"));
  acts = join(folder, "acts.h5");
  out = join(folder, "run");
  const rng = new Rng(1, 4);
  const file = await createHdf5(acts, {
    datasets: [
      { name: "hidden_states", dtype: "f32", shape: [SEQUENCES, T, D] },
      { name: "tokens", dtype: "i32", shape: [SEQUENCES, T] },
    ],
    attributes: { start_token: 0, tokenizer: join(import.meta.dirname, "../../examples/brown-gpt/tokenizer.json") },
  });
  await file.write(
    "hidden_states",
    0,
    bytesOf(Float32Array.from({ length: SEQUENCES * T * D }, () => rng.uniform() * 4 - 2)),
  );
  await file.write(
    "tokens",
    0,
    bytesOf(Int32Array.from({ length: SEQUENCES * T }, (_, i) => (i % T === 0 ? 0 : 300 + ((i * 31) % 7)))),
  );
  await file.close();
  const source = await openSource([acts]);
  const options = {
    latents: 8,
    k: 2,
    auxk: 0,
    batch: 32,
    ema: 0.9,
    holdout: 0.2,
    statisticsRows: 64,
    engine: "reference",
    out,
  } as const;
  await (await train(source, options)).finished;
  await source.close();
});
afterAll(() => rm(folder, { recursive: true }));

describe("evaluating a run", () => {
  it("looks at its hold-out without the excluded tokens, and shows latents in their text", async () => {
    await using engine = createReferenceEngine();
    await using sae = await loadSae(out, { engine });
    const { source, ranges, nonFinite } = await evalData(sae.path, [], {});
    expect(countRows(ranges) % (T - 1)).toBe(0);
    expect(countRows(ranges)).toBeGreaterThan(0);
    expect(countRows(ranges)).toBeLessThan((SEQUENCES * T) / 2);
    expect(ranges.every(({ first, count }) => first % T === 1 && count === T - 1)).toBe(true);
    const report = await reportWithFeatures(sae, source, ranges, { nonFinite, features: 1 });
    expect(report.weights).toBe("ema");
    expect(report.metrics.rows).toBe(countRows(ranges));
    expect(report.metrics.fvu).toBeGreaterThan(0);
    expect(report.metrics.fvu).toBeLessThan(1.5);
    expect(report.fvuWithoutUnitDecoder).not.toBeNull();
    expect(report.fvuWithoutUnitDecoder).not.toBe(report.metrics.fvu);
    await source.close();
  });

  it("looks at all rows of other data, or those left by other tokens", async () => {
    await using engine = createReferenceEngine();
    await using sae = await loadSae(out, { engine, weights: "raw" });
    const all = await evalData(sae.path, [acts], {});
    expect(countRows(all.ranges)).toBe(SEQUENCES * (T - 1));
    await all.source.close();
    const { source, ranges } = await evalData(sae.path, [acts], { excludeTokens: "none" });
    expect(countRows(ranges)).toBe(SEQUENCES * T);
    const report = await reportWithFeatures(sae, source, ranges, { maxRows: 100, features: 2 });
    expect(report.metrics.rows).toBe(100);
    expect(report.fvuWithoutUnitDecoder).toBeNull();
    await source.close();
  });

  it("needs data where there is no run", async () => {
    await expect(evalData(folder, [], {})).rejects.toThrow(
      `${folder}: the autoencoder belongs to no run, so there is no hold-out`,
    );
  });
});
