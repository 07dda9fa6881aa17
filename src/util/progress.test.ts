import { describe, expect, it } from "vitest";
import { createProgressLine, formatDuration, type Stream } from "./progress.ts";

function recorder(isTTY: boolean, columns = 80): Stream & { text: string; listeners: (() => void)[] } {
  return {
    isTTY,
    columns,
    text: "",
    listeners: [],
    write(text) {
      this.text += text;
    },
    on(_event, listener) {
      this.listeners.push(listener);
    },
  };
}

describe("createProgressLine", () => {
  it("rewrites one line on a terminal, at most ten times a second, and takes it away", () => {
    const stream = recorder(true);
    let at = 0;
    const progress = createProgressLine({ label: "harvest", total: 10_000, unit: "tokens", stream, now: () => at });
    at = 1000;
    progress.update(2000);
    at = 1050;
    progress.update(2100);
    expect(stream.text).toBe("\r\u001b[2Kharvest: 2,000 of 10,000 tokens, 2,000 tokens/s, 4 s left");
    progress.done();
    expect(stream.text.endsWith("left\r\u001b[2K")).toBe(true);
  });

  it("writes a plain line every ten seconds elsewhere", () => {
    const stream = recorder(false);
    let at = 0;
    const progress = createProgressLine({ label: "train", unit: "rows", stream, now: () => at });
    for (at = 0; at <= 20_000; at += 500) progress.update(at / 10, "loss 0.5");
    progress.done();
    expect(stream.text).toBe("train: 1,000 rows, 100 rows/s, loss 0.5\ntrain: 2,000 rows, 100 rows/s, loss 0.5\n");
  });

  it("forgets a slow start and does not count what a resumed run had done", () => {
    const stream = recorder(false);
    let at = 0;
    const progress = createProgressLine({
      label: "train",
      total: 5000,
      unit: "rows",
      start: 900,
      stream,
      now: () => at,
    });
    at = 10_000;
    progress.update(1000);
    at = 20_000;
    progress.update(3000);
    expect(stream.text.split("\n")[0]).toBe("train: 1,000 of 5,000 rows, 10 rows/s, 6 min 40 s left");
    expect(stream.text.split("\n")[1]).toBe("train: 3,000 of 5,000 rows, 200 rows/s, 10 s left");
  });

  it("never writes more than a terminal's line holds", () => {
    const stream = recorder(true, 20);
    createProgressLine({ label: "harvest", unit: "tokens", stream, now: () => 0 }).update(123_456_789);
    expect(stream.text).toBe("\r\u001b[2Kharvest: 123,456,78");
  });

  it("tells no rate before it can be known", () => {
    const stream = recorder(true);
    let at = 0;
    const progress = createProgressLine({ label: "harvest", total: 10, unit: "tokens", stream, now: () => at });
    at = 1;
    progress.update(5);
    expect(stream.text).toBe("\r\u001b[2Kharvest: 5 of 10 tokens");
  });

  it("takes a terminal that does not know its width for a usual one", () => {
    const stream = recorder(true, 0);
    createProgressLine({ label: "harvest", unit: "tokens", stream, now: () => 0 }).update(123_456_789);
    expect(stream.text).toBe("\r\u001b[2Kharvest: 123,456,789 tokens");
  });

  it("listens once for a stream's errors", () => {
    const stream = recorder(false);
    createProgressLine({ label: "a", unit: "b", stream });
    createProgressLine({ label: "a", unit: "b", stream });
    expect(stream.listeners).toHaveLength(1);
  });
});

describe("formatDuration", () => {
  it.each([
    [0.4, "0 s"],
    [59.6, "1 min 00 s"],
    [3599, "59 min 59 s"],
    [3600 * 27 + 61, "27 h 01 min"],
  ])("says %s seconds as %s", (seconds, text) => {
    expect(formatDuration(seconds)).toBe(text);
  });
});
