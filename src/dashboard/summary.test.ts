import { hostname } from "node:os";
import { describe, expect, it } from "vitest";
import { linesOf, metricsLine } from "../../test/support/run-folder.ts";
import { type SummaryInput, summarize } from "./summary.ts";

const config = { tokens: 6400, batch: 32, drop_last: true };
const lines = linesOf(1, 50);
const input: SummaryInput = { config, lines, lock: `process 42 on ${hostname()}\n`, age: 1, alive: () => true };

describe("what a run is doing", () => {
  it("how far it is, how fast of late, and how long it will take", () => {
    expect(summarize(input)).toMatchObject({
      state: "running",
      step: 50,
      tokens: 1600,
      budget: 6400,
      elapsed_s: 5,
      rate: 320,
      left_s: 15,
    });
    // The rate is that of the last lines and of what was between them, not what the last one says
    // of itself.
    const slow = [...lines, metricsLine(51, 0, { elapsed_s: 65, tokens_per_second: 9e9 })];
    expect(summarize({ ...input, lines: slow }).rate).toBeCloseTo(32 / 60, 6);
    expect(summarize({ ...input, lines: lines.slice(0, 1) }).rate).toBe(320);
    expect(
      summarize({ ...input, lines: [...linesOf(198, 199), metricsLine(200, 0, { elapsed_s: 64 })] }),
    ).toMatchObject({
      rate: 100,
      left_s: null,
    });
  });

  it("how much there is to do where that is told in epochs", () => {
    expect(summarize({ ...input, config: { epochs: 2, batch: 32 } })).toMatchObject({
      budget: 12_800,
      state: "running",
    });
  });

  it.each<[string, Partial<SummaryInput>, string]>([
    ["done: what is left fills no batch", { lines: linesOf(199, 200) }, "done"],
    ["done, less than a batch short", { lines: linesOf(200, 200), config: { ...config, tokens: 6420 } }, "done"],
    [
      "not done: the last batch may be short",
      { lines: linesOf(200, 200), config: { ...config, tokens: 6420, drop_last: false } },
      "running",
    ],
    ["its process is gone", { alive: (pid) => pid !== 42 }, "stopped"],
    ["its process is on another machine", { lock: "process 42 on elsewhere", alive: () => false }, "running"],
    ["nothing was written for long", { age: 600 }, "quiet"],
    ["lines take long", { age: 600, lines: lines.map((line, i) => ({ ...line, elapsed_s: 100 * i })) }, "running"],
    ["nothing was written yet", { lines: [] }, "waiting"],
    ["and nobody will", { lines: [], alive: () => false }, "stopped"],
  ])("%s", (_, more, state) => {
    expect(summarize({ ...input, ...more }).state).toBe(state);
  });

  it("its last values, those that are measured now and then too, but none that became something else", () => {
    const { last } = summarize({
      ...input,
      lines: [...lines, metricsLine(51, 0, { loss: null, "<b>": 3, note: "text" })],
    });
    const values = new Map(last);
    expect(values.get("holdout_fvu")).toBeCloseTo(1.1 / Math.sqrt(40), 9);
    expect(values.has("loss")).toBe(false);
    expect(values.get("<b>")).toBe(3);
    expect([...values.keys()].filter((name) => ["step", "tokens", "elapsed_s", "note"].includes(name))).toEqual([]);
  });

  it("nothing that a hostile config says becomes a number", () => {
    const strange = { tokens: "6400", epochs: { a: 1 }, batch: null, __proto__: { tokens: 5 } };
    expect(summarize({ ...input, config: strange })).toMatchObject({ budget: null, left_s: null, state: "running" });
  });
});
