import { describe, expect, it } from "vitest";
import { Rng } from "../util/rng.ts";
import { TokenUses } from "./token-uses.ts";

const LATENTS = 12;
const K = 5;
const ROWS = 8000;

/**
 * Rows in which latent j fires on about 100 j tokens; token 7 is a third of them all. Latent 0
 * never fires.
 */
function draw() {
  const rng = new Rng(5);
  const kinds = Int32Array.from({ length: ROWS }, () => (rng.uniform() < 0.3 ? 7 : rng.below(1000)));
  const latent = new Uint32Array(ROWS * K).fill(0xffff_ffff);
  const value = new Float32Array(ROWS * K);
  for (let row = 0; row < ROWS; row++) {
    const chosen = rng.shuffle(Uint32Array.from({ length: LATENTS }, (_, j) => j)).subarray(0, K);
    for (const [slot, j] of chosen.entries()) {
      if (kinds[row] !== 7 && kinds[row] >= 100 * j) continue;
      latent[row * K + slot] = j;
      value[row * K + slot] = j === 0 ? 0 : rng.uniform() + 0.1;
    }
  }
  return { kinds, codes: { k: K, latent, value } };
}
const { kinds, codes } = draw();

function truth(latent: number) {
  const found = new Map<number, { token: number; firings: number; energy: number }>();
  for (let slot = 0; slot < codes.value.length; slot++) {
    if (codes.latent[slot] !== latent || !(codes.value[slot] > 0)) continue;
    const token = kinds[Math.floor(slot / K)];
    const before = found.get(token) ?? { token, firings: 0, energy: 0 };
    found.set(token, { token, firings: before.firings + 1, energy: before.energy + codes.value[slot] ** 2 });
  }
  return [...found.values()].sort((a, b) => b.energy - a.energy || a.token - b.token);
}

/** The rows in pieces of `size`. */
function addTo(uses: TokenUses, size: number): void {
  for (let first = 0; first < ROWS; first += size) {
    const slots = [first * K, Math.min(ROWS, first + size) * K] as const;
    uses.add(kinds.subarray(first, first + size), {
      k: K,
      latent: codes.latent.subarray(...slots),
      value: codes.value.subarray(...slots),
    });
  }
}

describe("TokenUses", () => {
  it("counts every token of every latent, however many there are and however the rows come", () => {
    for (const size of [ROWS, 999]) {
      const uses = new TokenUses(LATENTS);
      addTo(uses, size);
      expect([uses.first, uses.end]).toEqual([0, LATENTS]);
      for (let latent = 0; latent < LATENTS; latent++) expect(uses.of(latent)).toEqual(truth(latent));
      expect(uses.of(LATENTS - 1).length).toBeGreaterThan(500);
      expect(uses.of(LATENTS - 1)[0]).toMatchObject({ token: 7 });
      expect(uses.of(0)).toEqual([]);
    }
  });

  // A single latent has more tokens than the smallest table has places.
  it.each([2048, 1024, 256])("counts the same in %i places, over the rows again and again", (places) => {
    const uses = new TokenUses(LATENTS, places);
    const ends: number[] = [];
    while (ends.at(-1) !== LATENTS) {
      if (ends.length > 0) uses.startNext();
      addTo(uses, 1234);
      expect(uses.end).toBeGreaterThan(uses.first);
      for (let latent = uses.first; latent < uses.end; latent++) expect(uses.of(latent)).toEqual(truth(latent));
      ends.push(uses.end);
    }
    expect(ends.length).toBeGreaterThan(places === 2048 ? 1 : 3);
  });
});
