import { describe, expect, it } from "vitest";
import { dimsOf } from "../../test/topk.ts";
import { tiedStart, unitProbes } from "./init.ts";

const norm = (row: Float32Array) => Math.sqrt(row.reduce((sum, value) => sum + value * value, 0));

describe("the tied start", () => {
  const d = 48;
  const n = 200;
  const { encoder, decoder } = tiedStart(dimsOf({ d, n }), 9);

  it("has an encoder uniform in +-1/sqrt(d)", () => {
    const bound = 1 / Math.sqrt(d);
    const values = Array.from(encoder);
    expect(Math.max(...values.map(Math.abs))).toBeLessThanOrEqual(bound);
    expect(Math.max(...values)).toBeGreaterThan(0.99 * bound);
    expect(Math.min(...values)).toBeLessThan(-0.99 * bound);
    expect(values.reduce((a, b) => a + b) / values.length / bound).toBeCloseTo(0, 1);
    expect(values.reduce((a, b) => a + b * b, 0) / values.length / bound ** 2).toBeCloseTo(1 / 3, 2);
  });

  it("has a decoder of unit rows in the encoder's directions", () => {
    for (let latent = 0; latent < n; latent++) {
      const from = encoder.subarray(latent * d, (latent + 1) * d);
      const row = decoder.subarray(latent * d, (latent + 1) * d);
      expect(norm(row)).toBeCloseTo(1, 6);
      for (let i = 0; i < d; i++) expect(row[i]! * norm(from)).toBeCloseTo(from[i]!, 6);
    }
  });

  it("is a function of seed and latent alone", () => {
    expect(tiedStart(dimsOf({ d, n: 3 }), 9).encoder).toEqual(encoder.slice(0, 3 * d));
    expect(tiedStart(dimsOf({ d, n }), 10).encoder).not.toEqual(encoder);
  });
});

it("probes have norm 1 and many directions", () => {
  const probes = unitProbes(256, 5, 1);
  const mean = new Float64Array(5);
  for (let row = 0; row < 256; row++) {
    const probe = probes.subarray(row * 5, row * 5 + 5);
    expect(norm(probe)).toBeCloseTo(1, 6);
    for (const [i, value] of probe.entries()) mean[i]! += value / 256;
  }
  expect(Math.hypot(...mean)).toBeLessThan(0.15);
});
