import { describe, expect, it } from "vitest";
import type { Series } from "./api.ts";
import { Columns } from "./columns.ts";

function columnsOf(lines: readonly Readonly<Record<string, unknown>>[], limits = {}): Columns {
  const columns = new Columns(limits);
  for (const line of lines) columns.add(line);
  return columns;
}

const metric = (series: Series, name: string) => series.metrics.find((each) => each.name === name);

/** Noise with spikes, and a value that is missing now and then. */
const noisy = Array.from({ length: 20_000 }, (_, i) => ({
  step: 3 * (i + 1),
  tokens: 96 * (i + 1),
  elapsed_s: i / 7,
  loss:
    i === 12_345
      ? 1e6
      : i === 777
        ? -1e6
        : Math.sin((i + 1) * 12.9898) * 43_758.5453 - Math.floor(Math.sin((i + 1) * 12.9898) * 43_758.5453),
  grad_norm: i % 5 === 0 ? null : i,
}));

describe("few pieces of many lines", () => {
  it.each([
    "linear",
    "log",
  ] as const)("keep the least, the largest and the mean of what they stand for (%s)", (scale) => {
    const series = columnsOf(noisy).pieces("a", 400, scale);
    expect(series.step.length).toBeLessThanOrEqual(400);
    expect(series.step.length).toBeGreaterThan(scale === "linear" ? 399 : 200);
    const { mean, min, max } = metric(series, "loss")!;
    expect(Math.max(...(max as number[]))).toBe(1e6);
    expect(Math.min(...(min as number[]))).toBe(-1e6);
    expect(series.step.every((step, i) => i === 0 || step > series.step[i - 1]!)).toBe(true);
    // Every piece, against the lines that it stands for: they are those between the borders, which
    // are halfway between means.
    let begin = 0;
    for (const [i, step] of series.step.entries()) {
      let end = begin + 1;
      // The mean of equally spaced steps is their middle.
      while ((noisy[begin]!.step + noisy[end - 1]!.step) / 2 < step - 1e-6 * step) end++;
      const part = noisy.slice(begin, end);
      const losses = part.map(({ loss }) => loss);
      expect(min![i]).toBeCloseTo(Math.min(...losses), 4);
      expect(max![i]).toBeCloseTo(Math.max(...losses), 4);
      expect(mean[i]! / (losses.reduce((a, b) => a + b) / losses.length)).toBeCloseTo(1, 4);
      const norms = part.flatMap(({ grad_norm }) => (grad_norm === null ? [] : [grad_norm]));
      if (norms.length > 0) expect(metric(series, "grad_norm")!.max![i]).toBe(Math.max(...norms));
      else expect(metric(series, "grad_norm")!.mean[i]).toBeNull();
      begin = end;
    }
    expect(begin).toBe(noisy.length);
  });

  it("are finer at the beginning on a logarithmic axis", () => {
    const { step } = columnsOf(noisy).pieces("a", 100, "log");
    expect(step.slice(0, 5)).toEqual([3, 6, 9, 12, 15]);
  });

  it("of a part are those of its lines, and one more on either side", () => {
    const columns = columnsOf(noisy);
    expect(columns.range(300, 330)).toEqual([98, 111]);
    expect(columns.pieces("a", 400, "linear", ...columns.range(300, 330)).step).toEqual(
      Array.from({ length: 13 }, (_, i) => 297 + 3 * i),
    );
    expect(columns.range(Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY)).toEqual([0, noisy.length]);
    expect(columns.range(1e9, 2e9)).toEqual([noisy.length - 1, noisy.length]);
  });

  it("are the lines themselves where there are no more of those", () => {
    const series = columnsOf(noisy.slice(0, 6)).pieces("a", 6);
    expect(series).toEqual({
      run: "a",
      step: [3, 6, 9, 12, 15, 18],
      tokens: [96, 192, 288, 384, 480, 576],
      elapsed_s: series.elapsed_s,
      metrics: [
        { name: "loss", mean: metric(series, "loss")!.mean },
        { name: "grad_norm", mean: [null, 1, 2, 3, 4, null] },
      ],
    });
    expect(columnsOf([]).pieces("a", 6)).toEqual({ run: "a", step: [], tokens: [], elapsed_s: [], metrics: [] });
  });
});

describe("lines", () => {
  it("of a run that was resumed replace what came from their step on", () => {
    const columns = columnsOf([
      { step: 1, loss: 5 },
      { step: 2, loss: 4 },
      { step: 3, loss: 3 },
    ]);
    columns.add({ step: 2, loss: 4.4 });
    columns.add({ step: 2, loss: 4.5 });
    expect(columns.pieces("a", 10)).toMatchObject({ step: [1, 2], metrics: [{ name: "loss", mean: [5, 4.5] }] });
    expect(columns.truncations).toBe(2);
    columns.clear();
    expect([columns.lines, columns.truncations]).toEqual([0, 3]);
  });

  it("with new metrics, none, or what is no number", () => {
    const columns = columnsOf([
      { step: 1, loss: 5 },
      { loss: 3 },
      { step: "2" },
      { step: 1e308, loss: 4 },
      { step: 2, words: "text", list: [1], "<script>": 7 },
      { step: 3, __proto__: 1 },
    ]);
    expect(columns.pieces("a", 10)).toMatchObject({
      step: [1, 2, 3],
      metrics: [
        { name: "loss", mean: [5, null, null] },
        { name: "list_0", mean: [null, 1, null] },
        { name: "<script>", mean: [null, 7, null] },
      ],
    });
    expect(columns.newest()).toEqual([
      ["loss", 5],
      ["list_0", 1],
      ["<script>", 7],
    ]);
  });

  it("beyond the limits are left out", () => {
    const columns = columnsOf(
      [{ step: 1, a: 1, b: 2, c: 3 }, { step: 2, [`a${"b".repeat(99)}`]: 1 }, { step: 3 }, { step: 4 }],
      {
        lines: 3,
        metrics: 2,
      },
    );
    expect([columns.lines, columns.full]).toEqual([3, true]);
    expect(columns.pieces("a", 10).metrics.map(({ name }) => name)).toEqual(["a", "b"]);
  });
});

it("numbers of a list are metrics of their own, 16 of them at most", () => {
  const series = columnsOf([
    { step: 1, prefix_fvu: [0.5, 0.25], words: ["a"], many: Array.from({ length: 20 }, (_, i) => i) },
    { step: 2, prefix_fvu: [0.4, null] },
  ]).pieces("a", 10);
  expect(metric(series, "prefix_fvu_0")!.mean).toEqual([0.5, 0.4]);
  expect(metric(series, "prefix_fvu_1")!.mean).toEqual([0.25, null]);
  expect(series.metrics.map(({ name }) => name).filter((name) => !name.startsWith("many"))).toHaveLength(2);
  expect(series.metrics.map(({ name }) => name)).toContain("many_15");
  expect(series.metrics.map(({ name }) => name)).not.toContain("many_16");
});
