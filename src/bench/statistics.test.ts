import { describe, expect, it } from "vitest";
import { cpuPerWall, median, Series, TRIES } from "./statistics.ts";

describe("statistics of measurements", () => {
  it("takes the middle one, or the mean of the two in the middle", () => {
    expect(median([30, 1, 2])).toBe(2);
    expect(median([30, 1, 2, 10])).toBe(6);
    expect(median([])).toBeNaN();
  });

  it("adds up before it divides", () => {
    expect(
      cpuPerWall([
        { ms: 100, cpuMs: 200 },
        { ms: 10, cpuMs: 10 },
      ]),
    ).toBeCloseTo(210 / 110);
  });
});

describe("a series", () => {
  it("throws samples away whose threads had not a CPU each, counts them, and measures again", async () => {
    const measured = [
      { ms: 10, cpuMs: 15.9 },
      { ms: 8, cpuMs: 16 },
      { ms: 9, cpuMs: 17 },
    ].values();
    const series = new Series(2);
    await series.take(async () => measured.next().value);
    await series.take(async () => measured.next().value);
    expect(series.samples).toEqual([
      { ms: 8, cpuMs: 16 },
      { ms: 9, cpuMs: 17 },
    ]);
    expect(series.thrown).toBe(1);
    expect(series.ms).toBe(8.5);
    expect(series.cpuMs).toBe(16.5);
    expect(series.cpuPerWall).toBeCloseTo(33 / 17);
  });

  it("gives up on a machine that stays busy, and has no median then", async () => {
    const series = new Series(2);
    await series.take(async () => ({ ms: 10, cpuMs: 10 }));
    expect(series.samples).toEqual([]);
    expect(series.thrown).toBe(TRIES);
    expect(series.ms).toBeNaN();
  });

  it("does not try again what cannot be measured", async () => {
    const series = new Series(1);
    let asked = 0;
    await series.take(async () => {
      asked++;
      return undefined;
    });
    expect([asked, series.thrown, series.samples.length]).toEqual([1, 0, 0]);
  });
});
