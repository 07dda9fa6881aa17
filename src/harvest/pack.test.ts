import { describe, expect, it } from "vitest";
import { Packer } from "./pack.ts";

/** Contexts of 4 with start token 0, and what is left over. */
function pack(...documents: number[][]): { contexts: number[][]; rest: number } {
  const packer = new Packer(4, 0);
  for (const document of documents) packer.add(Int32Array.from(document));
  const ids = [...packer.take(Number.POSITIVE_INFINITY)];
  const contexts = Array.from({ length: packer.contexts }, (_, i) => ids.slice(4 * i, 4 * i + 4));
  return { contexts, rest: packer.tokens - ids.length };
}

describe("Packer", () => {
  it("starts every context and every document with the start token", () => {
    expect(pack([1, 2, 3, 4, 5], [6, 7])).toEqual({
      contexts: [
        [0, 1, 2, 3],
        [0, 4, 5, 0],
      ],
      rest: 3,
    });
  });

  it("gives a document that begins with a context one start token, not two", () => {
    expect(pack([1, 2, 3], [4, 5, 6])).toEqual({
      contexts: [
        [0, 1, 2, 3],
        [0, 4, 5, 6],
      ],
      rest: 0,
    });
  });

  it("gives a document that spells out its start token no second one", () => {
    expect(pack([0, 1], [0, 2, 3])).toEqual({ contexts: [[0, 1, 0, 2]], rest: 2 });
  });

  it("skips documents without tokens, and keeps what does not fill a context to itself", () => {
    expect(pack([], [1], [], [2])).toEqual({ contexts: [[0, 1, 0, 2]], rest: 0 });
    expect(pack([1])).toEqual({ contexts: [], rest: 2 });
  });

  it("loses no token of long texts", () => {
    const packer = new Packer(7, 0);
    const documents = Array.from({ length: 50 }, (_, i) =>
      Int32Array.from({ length: 11 + i }, (_, j) => 1 + ((i * 31 + j) % 90)),
    );
    for (const document of documents) packer.add(document);
    const ids = [...packer.take(packer.contexts)];
    const whole = documents.flatMap((document) => [...document]);
    const kept = ids.filter((id) => id !== 0);
    expect(kept).toEqual(whole.slice(0, kept.length));
    expect(whole.length - kept.length).toBeLessThan(7);
    expect(ids.every((id, at) => at % 7 !== 0 || id === 0)).toBe(true);
    expect(packer.take(2)).toHaveLength(14);
  });
});
