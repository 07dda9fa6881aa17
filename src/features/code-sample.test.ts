import { expect, it } from "vitest";
import { NONE } from "../engine/engine.ts";
import { Rng } from "../util/rng.ts";
import { CodeSample, rowsOfLatents, type SampledCodes } from "./code-sample.ts";
import { byCorrelation } from "./compare.ts";
import { firingTogether } from "./together.ts";

/** Codes of dense rows [rows][latents]. */
function codesOf(rows: readonly (readonly number[])[], k: number) {
  const latent = new Uint32Array(rows.length * k).fill(NONE);
  const value = new Float32Array(rows.length * k);
  for (const [r, row] of rows.entries()) {
    let slot = r * k;
    for (const [j, each] of row.entries()) if (each > 0) [latent[slot], value[slot++]] = [j, each];
  }
  return { k, latent, value };
}

function dense({ rows, begin, latent, value }: SampledCodes, latents: number): number[][] {
  return Array.from({ length: rows }, (_, r) => {
    const row = Array.from({ length: latents }, () => 0);
    for (let i = begin[r]; i < begin[r + 1]; i++) row[latent[i]] = value[i];
    return row;
  });
}

const LATENTS = 7;
const rng = new Rng(3);
const rowsWith = (density: number) =>
  Array.from({ length: 400 }, () =>
    Array.from({ length: LATENTS }, () => (rng.uniform() < density ? Math.fround(rng.uniform() + 0.1) : 0)),
  );

it("keeps all rows within its budget, else every other of them, and the same of each autoencoder", () => {
  const [a, b] = [rowsWith(0.3), rowsWith(0.1)];
  const add = (most: number) => {
    const sample = new CodeSample(2, most);
    for (const first of [0, 150, 390])
      sample.add(
        [a, b].map((rows) => codesOf(rows.slice(first, first === 0 ? 150 : first === 150 ? 390 : 400), LATENTS)),
      );
    return [dense(sample.of(0), LATENTS), dense(sample.of(1), LATENTS)];
  };
  expect(add(1e6)).toEqual([a, b]);
  const codes = a.flat().filter((each) => each > 0).length;
  const every = (n: number, rows: typeof a) => rows.filter((_, r) => r % n === 0);
  expect(add(Math.ceil(codes / 2) + 40)).toEqual([every(2, a), every(2, b)]);
  const [few] = add(40);
  expect(few!.flat().filter((each) => each > 0).length).toBeLessThanOrEqual(40);
  expect(few).toEqual(every(400 / few!.length > 16 ? 32 : 16, a));
});

it("lists the rows of each latent", () => {
  const rows = rowsWith(0.3);
  const sample = new CodeSample(1);
  sample.add([codesOf(rows, LATENTS)]);
  const { offsets, row, code } = rowsOfLatents(sample.of(0), LATENTS);
  for (let j = 0; j < LATENTS; j++) {
    const expected = rows.flatMap((each, r) => (each[j]! > 0 ? [r] : []));
    expect([...row.subarray(offsets[j], offsets[j + 1])]).toEqual(expected);
    for (let at = offsets[j]; at < offsets[j + 1]; at++) expect(sample.of(0).latent[code[at]]).toBe(j);
  }
});

it("counts what fires together, with the lift by its definition", () => {
  const rows = rowsWith(0.2).map((row) => row.map((each, j) => (j === 3 ? (row[1]! > 0 ? 1 : 0) : each)));
  const sample = new CodeSample(1);
  sample.add([codesOf(rows, LATENTS)]);
  const found = [...firingTogether(sample.of(0), LATENTS, 3)];
  const count = (test: (row: readonly number[]) => boolean) => rows.filter(test).length;
  for (const [j, others] of found.entries()) {
    const all = Array.from({ length: LATENTS }, (_, other) => {
      const firings = count((row) => row[j]! > 0 && row[other]! > 0);
      const lift = (firings * rows.length) / (count((row) => row[j]! > 0) * count((row) => row[other]! > 0));
      return { latent: other, firings, lift: Number(lift.toPrecision(4)), worth: firings * Math.log(lift) };
    }).filter(({ latent, firings, lift }) => latent !== j && firings >= 5 && lift > 1);
    const expected = all.toSorted((x, y) => y.worth - x.worth).slice(0, 3);
    expect(others).toEqual(expected.map(({ worth: _, ...each }) => each));
  }
  expect(found[1]![0]).toMatchObject({ latent: 3, firings: count((row) => row[1]! > 0) });
});

it("correlates activations, those of 0 included", () => {
  const a = rowsWith(0.3);
  const b = a.map((row) => [row[2]! * 2, row[0]! + (rng.uniform() < 0.1 ? 1 : 0), 0, row[5]! > 0.5 ? 1 : 0]);
  const sample = new CodeSample(2);
  sample.add([codesOf(a, LATENTS), codesOf(b, 4)]);
  const found = byCorrelation(sample.of(0), sample.of(1), LATENTS, 4);
  const column = (rows: readonly (readonly number[])[], j: number) => rows.map((row) => row[j]!);
  const mean = (values: readonly number[]) => values.reduce((sum, each) => sum + each, 0) / values.length;
  const correlation = (x: readonly number[], y: readonly number[]) => {
    const [mx, my] = [mean(x), mean(y)];
    const cov = mean(x.map((each, r) => (each - mx) * (y[r]! - my)));
    return cov / Math.sqrt(mean(x.map((each) => (each - mx) ** 2)) * mean(y.map((each) => (each - my) ** 2)));
  };
  for (let i = 0; i < LATENTS; i++) {
    const all = [0, 1, 3].map((j) => Math.max(0, correlation(column(a, i), column(b, j))));
    expect(found.a.value[i]).toBeCloseTo(Math.max(...all), 3);
  }
  expect(found.b.best[0]).toBe(2);
  expect(found.b.value[0]).toBe(1);
  expect(found.b.best[1]).toBe(0);
  expect([found.b.best[3], found.b.value[2]]).toEqual([5, 0]);
});
