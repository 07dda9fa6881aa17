import { describe, expect, it } from "vitest";
import { DeadlineError, within } from "./deadline.ts";

describe("work within a deadline", () => {
  it("gives back what it returns and what it throws", () => {
    expect(within(1000, () => [1, 2])).toEqual([1, 2]);
    const error = new TypeError("mine");
    expect(() =>
      within(1000, () => {
        throw error;
      }),
    ).toThrow(error);
  });

  it("ends a loop and a regular expression that do not end", () => {
    expect(() =>
      within(100, () => {
        for (;;);
      }),
    ).toThrow(DeadlineError);
    expect(() => within(100, () => /^(a+)+$/.test(`${"a".repeat(60)}b`))).toThrow(/^took more than \d+ ms$/);
    expect(within(1000, () => within(1000, () => 7))).toBe(7);
  });

  it("gives work that had no processor another try", () => {
    let tries = 0;
    const asleep = new Int32Array(new SharedArrayBuffer(4));
    const answer = within(150, () => {
      tries++;
      if (tries === 1) Atomics.wait(asleep, 0, 0); // until the deadline ends it
      return "done";
    });
    expect(answer).toBe("done");
    expect(tries).toBeGreaterThan(1);
  });
});
