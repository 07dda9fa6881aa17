import { describe, expect, it } from "vitest";
import { fmix32, hash32, Rng } from "./rng.ts";

describe("hashes", () => {
  it("fmix32 is Murmur3's finaliser", () => {
    expect([0, 1, 0xdeadbeef, 0xffffffff].map(fmix32)).toEqual([0, 0x514e28b7, 0x0de5c6a9, 0x81f16f39]);
  });

  it("hash32 takes every key, its place and its upper half into account", () => {
    const lists = [[0], [1], [0, 0], [0, 1], [1, 0], [2 ** 32], [2 ** 32 + 1], [2 ** 40], [0, 2 ** 32]];
    expect(new Set(lists.map((keys) => hash32(...keys))).size).toBe(lists.length);
    expect(new Set(Array.from({ length: 20_000 }, (_, i) => hash32(7, 3, i))).size).toBeGreaterThan(19_990);
  });
});

describe("the generator", () => {
  it("is xoshiro128**", () => {
    // The state that the seeds give, and from it the published recurrence.
    const keys = [5, 6];
    const rotate = (x: bigint, by: bigint) => ((x << by) | (x >> (32n - by))) & 0xffff_ffffn;
    const s = [1, 2, 3, 4].map((i) => BigInt(hash32(...keys, i)));
    s[3]! |= 1n;
    const rng = new Rng(...keys);
    for (let draw = 0; draw < 50; draw++) {
      expect(BigInt(rng.u32())).toBe((rotate((s[1]! * 5n) & 0xffff_ffffn, 7n) * 9n) & 0xffff_ffffn);
      const t = (s[1]! << 9n) & 0xffff_ffffn;
      s[2]! ^= s[0]!;
      s[3]! ^= s[1]!;
      s[1]! ^= s[2]!;
      s[0]! ^= s[3]!;
      s[2]! ^= t;
      s[3] = rotate(s[3]!, 11n);
    }
  });

  it("draws the same for the same keys and else for others", () => {
    const draw = (...keys: number[]) => {
      const rng = new Rng(...keys);
      return Array.from({ length: 4 }, () => rng.u32());
    };
    expect(draw(1, 2)).toEqual(draw(1, 2));
    expect(draw(1, 2)).not.toEqual(draw(2, 1));
    expect(draw(1, 2)).not.toEqual(draw(1, 3));
  });

  it("draws uniform and normal numbers", () => {
    const rng = new Rng(1);
    const uniform = Array.from({ length: 20_000 }, () => rng.uniform());
    expect(Math.min(...uniform)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...uniform)).toBeLessThan(1);
    expect(uniform.reduce((a, b) => a + b) / 20_000).toBeCloseTo(0.5, 1.7);
    const normal = Array.from({ length: 20_000 }, () => rng.normal());
    expect(normal.reduce((a, b) => a + b) / 20_000).toBeCloseTo(0, 1);
    expect(normal.reduce((a, b) => a + b * b, 0) / 20_000).toBeCloseTo(1, 1);
    expect(normal.filter((x) => Math.abs(x) > 1.96).length / 20_000).toBeCloseTo(0.05, 1.7);
  });

  it("draws below a bound, each number as often", () => {
    const rng = new Rng(2);
    const seen = new Array<number>(7).fill(0);
    for (let i = 0; i < 14_000; i++) seen[rng.below(7)]!++;
    for (const count of seen) expect(Math.abs(count - 2000)).toBeLessThan(200);
    // 3 x 2^30 divides 2^32 badly: without the redraw the lower third would come twice as often.
    let low = 0;
    for (let i = 0; i < 6000; i++) if (rng.below(3 * 2 ** 30) < 2 ** 30) low++;
    expect(Math.abs(low - 2000)).toBeLessThan(200);
    expect(rng.below(1)).toBe(0);
    expect(rng.below(2 ** 32)).toBeLessThan(2 ** 32);
  });

  it("shuffles: a permutation, and every one as often", () => {
    expect([...new Rng(3).shuffle(Uint32Array.from({ length: 100 }, (_, i) => i))].toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: 100 }, (_, i) => i),
    );
    const rng = new Rng(4);
    const seen = new Map<string, number>();
    for (let i = 0; i < 6000; i++) {
      const key = rng.shuffle(Uint32Array.of(0, 1, 2)).join();
      seen.set(key, (seen.get(key) ?? 0) + 1);
    }
    expect(seen.size).toBe(6);
    for (const count of seen.values()) expect(Math.abs(count - 1000)).toBeLessThan(150);
  });
});
