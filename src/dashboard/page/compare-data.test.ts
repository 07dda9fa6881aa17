import { describe, expect, it } from "vitest";
import type { OptionValue, RunSummary } from "../api.ts";
import { columnsOf, groupsOf, paretoFront, passes, pointsOf, sorted, suitsLog, ticksFor } from "./compare-data.ts";

function run(
  name: string,
  options: Record<string, OptionValue>,
  last: Record<string, number>,
  sweep = "s",
): RunSummary {
  const times = { written: 0, step: 10, tokens: 320, budget: 320, elapsed_s: 5, rate: null, left_s: null };
  return {
    ...{ id: name, name, state: "done", features: false, sweep, problem: null },
    ...times,
    options: Object.entries(options),
    last: Object.entries(last),
  };
}

const RUNS = [
  run("a", { k: 8, latents: 64, lr: 0.001, seed: 0, warmup: 3 }, { holdout_fvu: 0.3, fvu: 0.31, l0: 8 }),
  run("b", { k: 16, latents: 64, lr: 0.01, seed: 0, warmup: 4 }, { holdout_fvu: 0.2, fvu: 0.21, l0: 16, dead: 3 }),
  run("c", { k: 16, latents: 64, lr: 0.001, seed: 0, warmup: 4 }, { fvu: 0.5, holdout_l0: 12, l0: 16 }),
];
const COLUMNS = columnsOf(RUNS);
const column = (name: string) => COLUMNS.find((each) => each.name === name)!;

describe("the columns", () => {
  it("are the options in which runs differ, k and latents, and what was measured", () => {
    expect(COLUMNS.map(({ name }) => name)).toEqual([
      "k",
      "latents",
      "lr",
      "holdout_fvu",
      "fvu",
      "l0",
      "dead",
      "tokens",
      "elapsed_s",
    ]);
    expect(columnsOf([...RUNS, run("d", { k: 1 }, {}, "other")])[0]).toMatchObject({ name: "sweep", option: true });
  });

  it("take the average of the weights, and the L0 of inference", () => {
    const averaged = run("e", {}, { holdout_fvu: 0.4, holdout_fvu_ema: 0.35 });
    expect(column("holdout_fvu").of(averaged)).toBe(0.35);
    expect(column("l0").of(RUNS[2]!)).toBe(12);
    expect(column("holdout_fvu").of(RUNS[2]!)).toBe(null);
  });
});

describe("the table", () => {
  const names = (runs: readonly RunSummary[]) => runs.map(({ name }) => name).join("");

  it("is sorted either way, what is not known last", () => {
    expect(names(sorted(RUNS, column("holdout_fvu").of, false))).toBe("bac");
    expect(names(sorted(RUNS, column("holdout_fvu").of, true))).toBe("abc");
    expect(names(sorted(RUNS, column("k").of, true))).toBe("bca");
    expect(names(sorted(RUNS, ({ name }) => name, true))).toBe("cba");
  });

  it.each([
    ["", "abc"],
    ["k=16", "bc"],
    ["k=16 lr<1e-2", "c"],
    ["lr>=0.001 k!=16", "a"],
    ["held-out_FVU<0.25", "b"],
    ["holdout_fvu<=0.3", "ab"],
    ["dead!=3", "ac"],
    ["seed=0", "abc"],
    ["seed=1", ""],
    ["done", "abc"],
    ["b", "b"],
    ["nothing", ""],
    ["nothing=3", ""],
  ])("is filtered by %j", (filter, expected) => {
    expect(names(RUNS.filter((each) => passes(each, filter, COLUMNS)))).toBe(expected);
  });

  it("has groups in the order of their values", () => {
    expect(groupsOf(RUNS, column("lr"))).toEqual(["0.001", "0.01"]);
    expect(groupsOf(RUNS, undefined)).toEqual([]);
  });
});

describe("the picture", () => {
  it("has a point for each run with both numbers", () => {
    const points = pointsOf(RUNS, column("l0"), column("holdout_fvu"), { x: true, y: false });
    expect(points.map(({ run: { name }, x, y }) => [name, x, y])).toEqual([
      ["a", 8, 0.3],
      ["b", 16, 0.2],
    ]);
    expect(pointsOf(RUNS, column("dead"), column("fvu"), { x: false, y: false })).toHaveLength(1);
  });

  it("marks the points that no other is better than", () => {
    const at = (x: number, y: number) => ({ run: RUNS[0]!, x, y });
    const front = paretoFront([at(3, 1), at(1, 5), at(2, 5), at(2, 3), at(4, 1), at(1, 6)]);
    expect(front.map(({ x, y }) => [x, y])).toEqual([
      [1, 5],
      [2, 3],
      [3, 1],
    ]);
    expect(paretoFront([])).toEqual([]);
  });

  it("is logarithmic where the numbers span much, with round ticks", () => {
    expect(suitsLog([4, 16, null, "x"])).toBe(true);
    expect(suitsLog([4, 8])).toBe(false);
    expect(suitsLog([0, 8])).toBe(false);
    expect(suitsLog([])).toBe(false);
    expect(ticksFor(0.1, 0.62, false)).toEqual([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
    expect(ticksFor(3, 70, true)).toEqual([5, 10, 20, 50]);
    expect(ticksFor(0.11, 0.64, true)).toEqual([0.15, 0.2, 0.3, 0.4, 0.5]);
    expect(ticksFor(1e-4, 1e-2, true)).toEqual([1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]);
    expect(ticksFor(5, 5, false)).toEqual([5]);
  });
});
