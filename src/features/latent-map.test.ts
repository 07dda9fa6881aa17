import { expect, it } from "vitest";
import { Rng } from "../util/rng.ts";
import { latentMap, principalPlaces } from "./latent-map.ts";

/** Directions in groups: each of `groups` has `size` members around a random one. */
function grouped(groups: number, size: number, d: number): Float32Array {
  const rng = new Rng(9);
  const rows: number[] = [];
  for (let group = 0; group < groups; group++) {
    const center = Array.from({ length: d }, () => rng.normal());
    for (let member = 0; member < size; member++) {
      const row = center.map((each) => each + 0.5 * rng.normal());
      const length = Math.hypot(...row);
      rows.push(...row.map((each) => each / length));
    }
  }
  return Float32Array.from(rows);
}

function nearestOf(rows: Float32Array, d: number, count: number) {
  const n = rows.length / d;
  const latent = new Uint32Array(n * count);
  const cosine = new Float32Array(n * count);
  for (let i = 0; i < n; i++) {
    const all = Array.from({ length: n }, (_, j) => {
      let sum = 0;
      for (let k = 0; k < d; k++) sum += rows[i * d + k]! * rows[j * d + k]!;
      return { j, sum };
    }).filter(({ j, sum }) => j !== i && sum > 0);
    all.sort((a, b) => b.sum - a.sum);
    for (const [slot, { j, sum }] of all.slice(0, count).entries())
      [latent[i * count + slot], cosine[i * count + slot]] = [j, sum];
  }
  return { count, latent, cosine };
}

it("brings groups of directions together that two components mix, the same each time", () => {
  const [groups, size, d] = [20, 10, 32];
  const rows = grouped(groups, size, d);
  const nearest = nearestOf(rows, d, 8);
  const { x, y } = latentMap(rows, d, nearest);
  const again = latentMap(rows, d, nearest);
  expect([again.x, again.y]).toEqual([x, y]);
  /** Share of the nearest point of each that is of its group. */
  const kept = (px: ArrayLike<number>, py: ArrayLike<number>) => {
    let count = 0;
    for (let i = 0; i < px.length; i++) {
      let [best, least] = [-1, Number.POSITIVE_INFINITY];
      for (let j = 0; j < px.length; j++) {
        const distance = (px[i]! - px[j]!) ** 2 + (py[i]! - py[j]!) ** 2;
        if (j !== i && distance < least) [best, least] = [j, distance];
      }
      if (Math.floor(best / size) === Math.floor(i / size)) count++;
    }
    return count / px.length;
  };
  const flat = principalPlaces(rows, d);
  const axis = (a: number) => Array.from({ length: flat.length / 2 }, (_, i) => flat[2 * i + a]!);
  expect(kept(x, y)).toBeGreaterThan(0.95);
  expect(kept(axis(0), axis(1))).toBeLessThan(0.6);
  expect([Math.min(...x), Math.max(...x), Math.min(...y), Math.max(...y)]).toEqual([0, 65_535, 0, 65_535]);
});

it("has a place for one latent, and for directions that are all the same", () => {
  const one = latentMap(Float32Array.of(1, 0), 2, {
    count: 0,
    latent: new Uint32Array(0),
    cosine: new Float32Array(0),
  });
  expect([[...one.x], [...one.y]]).toEqual([[0], [0]]);
  const same = Float32Array.from({ length: 10 }, (_, i) => +(i % 2 === 0));
  const { x, y } = latentMap(same, 2, nearestOf(same, 2, 2));
  expect([x.length, y.length]).toEqual([5, 5]);
});
