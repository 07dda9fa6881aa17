import { describe, expect, it } from "vitest";
import { recovery } from "./recovery.ts";

/** A unit vector of the plane. */
const at = (degrees: number): [number, number] => [
  Math.cos((degrees * Math.PI) / 180),
  Math.sin((degrees * Math.PI) / 180),
];
const cosine = (degrees: number) => at(degrees)[0];

describe("recovery", () => {
  const truth = Float32Array.from([...at(0), ...at(90), ...at(200)]);

  it("tells shares, matches, duplicates and latents without a direction", () => {
    // Latent 0 is 10 degrees off direction 0, latent 1 on it; latent 2 is 20 degrees off direction
    // 1; latent 3 is opposite to direction 2.
    const found = recovery(truth, Float32Array.from([...at(10), ...at(1), ...at(110), ...at(20)]), 2);
    expect(found.directions).toBe(3);
    expect(found.latents).toBe(4);
    expect(found.meanMaxCosine).toBeCloseTo((cosine(1) + cosine(20) + cosine(90)) / 3, 6);
    expect(found.medianMaxCosine).toBeCloseTo(cosine(20), 6);
    expect(found.leastMaxCosine).toBeCloseTo(cosine(90), 6);
    expect(found.above.map(({ share }) => Math.round(3 * share))).toEqual([2, 1, 1]);
    expect(found.matches.map(({ direction, latent }) => [direction, latent])).toEqual([
      [0, 1],
      [1, 2],
    ]);
    expect(found.duplicated).toBe(2); // latent 0, and latent 3, which is 20 degrees off direction 0
    expect(found.unmatched).toBe(0);
  });

  it("gives no latent to two directions", () => {
    const found = recovery(Float32Array.from([...at(0), ...at(10)]), Float32Array.from([...at(7), ...at(180)]), 2);
    expect(found.matches.map(({ direction, latent }) => [direction, latent])).toEqual([[1, 0]]);
    expect(found.above.map(({ share }) => share)).toEqual([1, 1, 1]);
    expect(found.duplicated).toBe(0);
    expect(found.unmatched).toBe(1);
  });

  it("counts what is not a number as not found", () => {
    const found = recovery(truth, new Float32Array(4).fill(Number.NaN), 2);
    expect(found.matches).toEqual([]);
    expect(found.above.map(({ share }) => share)).toEqual([0, 0, 0]);
    expect(found.unmatched).toBe(2);
  });
});
