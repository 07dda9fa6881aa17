import { describe, expect, it } from "vitest";
import { NONE } from "../engine/engine.ts";
import type { SparseCodes } from "../inference/sae.ts";
import { hash32, PURPOSE, Rng } from "../util/rng.ts";
import type { SeenRows } from "./firings.ts";
import { AFTER, BEFORE, type KeptFiring, OF_A_KIND, SAMPLED, STRONGEST } from "./kept-firings.ts";
import { Profiles } from "./profiles.ts";

const ROWS = 3000;
const LATENTS = 6;
const K = 4;
/**
 * A row in 20 is left out, so that rows and their numbers differ; a context is 30 rows of the
 * source.
 */
const numbers = Float64Array.from({ length: ROWS }, (_, i) => i + Math.floor(i / 19));
const rows: SeenRows = {
  numbers,
  ids: Int32Array.from(numbers, (number) => number % 11),
  kinds: Int32Array.from(numbers, (number) => number % 7),
  contexts: Uint32Array.from(numbers, (number) => Math.floor(number / 30)),
  words: Uint8Array.from(numbers, (number) => number % 2),
};

/** Latent 5 never fires; values grow, so that caps are raised all the time. */
function drawCodes(): SparseCodes {
  const rng = new Rng(3);
  const latent = new Uint32Array(ROWS * K).fill(0xffff_ffff);
  const value = new Float32Array(ROWS * K);
  for (let row = 0; row < ROWS; row++) {
    const chosen = rng.shuffle(Uint32Array.of(0, 1, 2, 3, 4)).subarray(0, K);
    for (let slot = 0; slot < K; slot++) {
      if (rng.uniform() < 0.3) continue;
      latent[row * K + slot] = chosen[slot];
      value[row * K + slot] = 2 ** (rng.uniform() * 4 + (row / ROWS) * 6 - 8);
    }
  }
  return { k: K, latent, value };
}
const codes = drawCodes();

interface Fired {
  readonly row: number;
  readonly value: number;
}
function firingsOf(latent: number): Fired[] {
  const found: Fired[] = [];
  for (let slot = 0; slot < ROWS * K; slot++) {
    if (codes.latent[slot] === latent && codes.value[slot] > 0)
      found.push({ row: Math.floor(slot / K), value: codes.value[slot] });
  }
  return found;
}

/** Rows [first, end) of the codes, with so many slots per row. */
function withSlots(first: number, end: number, k: number): SparseCodes {
  const latent = new Uint32Array((end - first) * k).fill(NONE);
  const value = new Float32Array((end - first) * k);
  for (let row = first; row < end; row++) {
    const used = (row + 1) * K;
    let to = (row - first) * k;
    for (let slot = row * K; slot < used; slot++) {
      if (codes.latent[slot] === NONE) continue;
      latent[to] = codes.latent[slot]!;
      value[to++] = codes.value[slot]!;
    }
  }
  return { k, latent, value };
}

/** Profiles of the rows, given in pieces that end at `ends`, with so many slots. */
function collect(ends: readonly number[], slots: (piece: number) => number = () => K): Profiles {
  const profiles = new Profiles(LATENTS);
  let [first, piece] = [0, 0];
  for (const end of [...ends, ROWS]) {
    const part = {
      numbers: rows.numbers.subarray(first, end),
      ids: rows.ids?.subarray(first, end),
      kinds: rows.kinds?.subarray(first, end),
      contexts: rows.contexts.subarray(first, end),
      words: rows.words.subarray(first, end),
    };
    profiles.add(part, withSlots(first, end, slots(piece++)));
    first = end;
  }
  profiles.finish();
  return profiles;
}

const whole = collect([]);
const all = (profiles: Profiles) =>
  Array.from({ length: LATENTS }, (_, j) => [
    profiles.of(j),
    profiles.strongest(j),
    profiles.histogram(j),
    profiles.ranges(j),
  ]);

describe("Profiles", () => {
  it("are the same however the rows come", () => {
    const expected = all(whole);
    const piecewise = Array.from({ length: ROWS / 7 }, (_, i) => 7 * i);
    for (const ends of [[1], [1500], [ROWS - 1], [100, 101, 102, 2900], piecewise])
      expect(all(collect(ends))).toEqual(expected);
  });

  it("are the same where pieces have other numbers of slots, as those of a threshold have", () => {
    const ends = [1, 20, 60, 1500, 1530, 2990];
    const slots = (piece: number) => K + [0, 3, 1, 40, 0, 7, 2][piece]!;
    expect(all(collect(ends, slots))).toEqual(all(whole));
  });

  it("count what fires", () => {
    for (let latent = 0; latent < LATENTS; latent++) {
      const fired = firingsOf(latent);
      const { firings, energy, max, contexts, onWords } = whole.of(latent);
      expect(firings).toBe(fired.length);
      expect(max).toBe(Math.max(0, ...fired.map(({ value }) => value)));
      const sum = (of: readonly Fired[]) => of.reduce((total, { value }) => total + value ** 2, 0);
      expect(energy).toBeCloseTo(sum(fired), 9);
      expect(contexts).toBe(new Set(fired.map(({ row }) => rows.contexts[row])).size);
      expect(onWords * energy).toBeCloseTo(sum(fired.filter(({ row }) => rows.words[row] === 1)), 9);
    }
    expect(whole.total).toBeCloseTo(
      [0, 1, 2, 3, 4, 5].reduce((sum, latent) => sum + whole.of(latent).energy, 0),
      9,
    );
    expect([...whole.occurrences.values()].reduce((sum, each) => sum + each)).toBe(ROWS);
    // Of the tokens of a kind the most frequent one stands for it: token 3 is number 3 mod 11, of
    // kind 3 mod 7 where the number is 3 mod 77.
    const counts = new Map<number, number>();
    for (const [row, kind] of rows.kinds?.entries() ?? [])
      if (kind === 3) counts.set(rows.ids?.[row] ?? -1, (counts.get(rows.ids?.[row] ?? -1) ?? 0) + 1);
    expect(counts.get(whole.formOf(3))).toBe(Math.max(...counts.values()));
  });

  it("have exact histograms and ranges, whatever the caps were on the way", () => {
    for (let latent = 0; latent < LATENTS - 1; latent++) {
      const fired = firingsOf(latent);
      const max = Math.max(...fired.map(({ value }) => value));
      const { width, counts } = whole.histogram(latent);
      expect(Number.isInteger(Math.log2(width))).toBe(true);
      expect(counts.length).toBeGreaterThan(32);
      expect(counts.length * width).toBeGreaterThanOrEqual(max);
      const within = (from: number, to: number) => fired.filter(({ value }) => value > from && value <= to);
      expect(counts).toEqual(counts.map((_, i) => within(i * width, (i + 1) * width).length));
      const ranges = whole.ranges(latent);
      expect(ranges.reduce((sum, range) => sum + range.firings, 0)).toBe(fired.length);
      for (const { from, to, firings, sample } of ranges) {
        const inside = within(from, to);
        expect(firings).toBe(inside.length);
        // The sample is that of the lowest hashes, which no order of the rows changes.
        const hash = ({ row }: Fired) => hash32(PURPOSE.sample, latent, numbers[row]);
        const drawn = inside.sort((a, b) => hash(a) - hash(b)).slice(0, SAMPLED);
        expect(sample.map(({ number }) => number).sort()).toEqual(drawn.map(({ row }) => numbers[row]).sort());
      }
    }
    expect(whole.ranges(5)).toEqual([]);
    expect(whole.histogram(5).counts).toEqual([]);
  });

  it("keep the strongest firings of different contexts and kinds, with what is around them", () => {
    for (let latent = 0; latent < LATENTS - 1; latent++) {
      const fired = firingsOf(latent);
      const kept = whole.strongest(latent);
      expect(kept[0]?.value).toBe(Math.max(...fired.map(({ value }) => value)));
      expect(new Set(kept.map(({ context }) => context)).size).toBe(kept.length);
      const kinds = kept.map(({ number }) => number % 7);
      for (const kind of kinds) expect(kinds.filter((each) => each === kind).length).toBeLessThanOrEqual(OF_A_KIND);
      expect(new Set(kinds).size).toBe(7);
      expect(kept.length).toBeGreaterThan(7);
      for (const firing of [...kept, ...whole.ranges(latent).flatMap(({ sample }) => sample)])
        expectAround(firing, fired);
    }
  });

  it("keep the strongest of each context when no token is known", () => {
    const profiles = new Profiles(LATENTS);
    profiles.add({ ...rows, ids: undefined, kinds: undefined }, codes);
    profiles.finish();
    const best = new Map<number, number>();
    for (const { row, value } of firingsOf(0))
      best.set(rows.contexts[row], Math.max(value, best.get(rows.contexts[row]) ?? 0));
    const expected = [...best.values()].sort((a, b) => b - a).slice(0, STRONGEST);
    expect(profiles.strongest(0).map(({ value }) => value)).toEqual(expected);
  });
});

function expectAround({ number, value, around }: KeptFiring, fired: readonly Fired[]): void {
  const expected = new Float32Array(BEFORE + 1 + AFTER);
  for (const each of fired) {
    const place = numbers[each.row] - number + BEFORE;
    if (place >= 0 && place < expected.length) expected[place] = each.value;
  }
  expect(expected[BEFORE]).toBe(value);
  for (const [i, each] of expected.entries()) expect(Math.abs(around[i] - each)).toBeLessThanOrEqual(each * 2 ** -8);
}
