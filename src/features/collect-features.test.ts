import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FIXTURES } from "../../test/interchange/fixtures.ts";
import { writeTiedSae } from "../../test/support/planted.ts";
import type { Source } from "../data/source.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { loadSae, type Sae } from "../inference/sae.ts";
import { bytesOf } from "../util/bytes.ts";
import { Rng } from "../util/rng.ts";
import { activePerRow, collectFeatures } from "./collect-features.ts";
import { TokenUses } from "./token-uses.ts";

const LATENTS = 12;
const WIDTH = 4;
const K = 3;
const ROWS = 3000;
const RANGES = [
  { first: 0, count: 1000 },
  { first: 1200, count: 1800 },
];

const rng = new Rng(9);
const values = Float32Array.from({ length: ROWS * WIDTH }, () => rng.normal());
/**
 * Every latent fires on hundreds of tokens; the last of the text come back as often as the first.
 */
const tokens = Int32Array.from({ length: ROWS }, (_, row) => (row % 3 === 0 ? row % 7 : rng.below(600)));
const source: Source = {
  description: "memory",
  paths: ["memory"],
  dIn: WIDTH,
  rows: ROWS,
  dtype: "f32",
  sequence: 50,
  grain: 1,
  origin: {},
  tokens: async (first, count) => tokens.slice(first, first + count),
  read: async (first, count, into) => into.set(bytesOf(values.slice(first * WIDTH, (first + count) * WIDTH))),
  locate: (row) => `row ${row}`,
  close: async () => undefined,
};

let folder = "";
let sae: Sae;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-collect-"));
  const rows = Float32Array.from({ length: LATENTS * WIDTH }, () => rng.normal());
  const path = await writeTiedSae(folder, WIDTH, K, rows, new Float32Array(LATENTS));
  sae = await loadSae(path, { engine: createReferenceEngine() });
});
afterAll(async () => {
  await sae.close();
  await rm(folder, { recursive: true });
});

describe("collectFeatures", () => {
  it("counts the firings of every token that it names exactly, the tokens with most energy first", async () => {
    const { features, metrics } = await collectFeatures(sae, source, RANGES);
    const rows = RANGES.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i));
    expect(metrics.rows).toBe(rows.length);
    const { latent, value } = await sae.encode(
      Float32Array.from(rows.flatMap((row) => [...values.subarray(row * WIDTH, (row + 1) * WIDTH)])),
    );
    let most = 0;
    for (const feature of features) {
      const on = new Map<number, { firings: number; energy: number }>();
      for (const [slot, j] of latent.entries()) {
        if (j !== feature.latent || !(value[slot] > 0)) continue;
        const token = tokens[rows[Math.floor(slot / K)]];
        const { firings, energy } = on.get(token) ?? { firings: 0, energy: 0 };
        on.set(token, { firings: firings + 1, energy: energy + value[slot] ** 2 });
      }
      most = Math.max(most, on.size);
      const total = [...on.values()].reduce((sum, { energy }) => sum + energy, 0);
      const expected = [...on].sort(([, a], [, b]) => b.energy - a.energy).slice(0, 48);
      expect(feature.tokens.map(({ token, firings }) => [token, firings])).toEqual(
        expected.map(([token, { firings }]) => [token, firings]),
      );
      for (const [i, { token, share, occurrences }] of feature.tokens.entries()) {
        expect(share).toBeCloseTo(expected[i][1].energy / total, 9);
        expect(occurrences).toBe(rows.filter((row) => tokens[row] === token).length);
      }
    }
    expect(most).toBeGreaterThan(200);
  });

  it("takes the mean number of active latents where a threshold decides, not the slots", async () => {
    const { metrics } = await collectFeatures(sae, source, RANGES);
    expect(activePerRow(sae, metrics)).toBe(K);
    await using byThreshold = await loadSae(join(FIXTURES, "saelens-jumprelu"), { engine: createReferenceEngine() });
    expect(activePerRow(byThreshold, { ...metrics, l0: 7.25 })).toBe(7.25);
  });

  it("finds the same where memory holds few counts at a time, over the rows again and again", async () => {
    const stages = new Set<string>();
    const onProgress = (stage: string) => stages.add(stage);
    const { features } = await collectFeatures(sae, source, RANGES, { onProgress, uses: new TokenUses(LATENTS, 1024) });
    expect(features).toEqual((await collectFeatures(sae, source, RANGES)).features);
    expect([...stages]).toEqual(["read", "count"]);
  });
});
