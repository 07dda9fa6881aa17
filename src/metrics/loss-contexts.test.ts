import { describe, expect, it } from "vitest";
import type { Source } from "../data/source.ts";
import { contextsOfIds, contextsOfSource } from "./loss-contexts.ts";

/** 20 sequences of 4 rows; the token of row r is 100 + r. */
function source(changes: Partial<Source> = {}): Source {
  return {
    description: "memory",
    paths: ["acts.h5"],
    dIn: 1,
    rows: 80,
    dtype: "f32",
    sequence: 4,
    grain: 1,
    origin: {},
    tokens: async (first, count) => Int32Array.from({ length: count }, (_, i) => 100 + first + i),
    read: async () => undefined,
    locate: (row) => `row ${row}`,
    close: async () => undefined,
    ...changes,
  };
}

describe("contexts of a source", () => {
  const ranges = [
    { first: 5, count: 3 },
    { first: 17, count: 6 },
    { first: 79, count: 1 },
  ];

  it("are the whole sequences that rows are in, of which those rows are spliced", async () => {
    const contexts = contextsOfSource(source(), ranges, 1000);
    expect(contexts).toMatchObject({ context: 4, count: 4, description: "4 contexts of 4 tokens of acts.h5" });
    const { ids, spliced } = await contexts.read(1, 3);
    expect([...ids]).toEqual([16, 17, 18, 19, 20, 21, 22, 23, 76, 77, 78, 79].map((row) => 100 + row));
    expect([...spliced]).toEqual([0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1]);
  });

  it("are at most so many tokens, from one end to the other", async () => {
    const all = [{ first: 0, count: 80 }];
    const contexts = contextsOfSource(source(), all, 22);
    expect(contexts.count).toBe(5);
    const { ids } = await contexts.read(0, 5);
    expect([...ids].filter((_, i) => i % 4 === 0)).toEqual([100, 116, 132, 148, 164]);
    expect(contextsOfSource(source(), all, 1).count).toBe(1);
  });

  it("need tokens in sequences", () => {
    expect(() => contextsOfSource(source({ tokens: undefined }), ranges, 9)).toThrow(
      "acts.h5: has no tokens, so there is no text to run the model on",
    );
    expect(() => contextsOfSource(source({ sequence: undefined }), ranges, 9)).toThrow(
      /is an array of rows, not of sequences.*--text FILE/,
    );
  });
});

describe("contexts of ids", () => {
  it("splice all rows but those of excluded tokens", async () => {
    const ids = Int32Array.of(0, 5, 6, 0, 7, 5);
    const spliced = async (exclude: "start" | "none" | number[]) => [
      ...(await contextsOfIds(ids, 3, { excludeTokens: exclude, startToken: 0 }, "x").read(0, 2)).spliced,
    ];
    expect(await spliced("start")).toEqual([0, 1, 1, 0, 1, 1]);
    expect(await spliced("none")).toEqual([1, 1, 1, 1, 1, 1]);
    expect(await spliced([5, 7])).toEqual([1, 0, 1, 1, 0, 0]);
    expect([...(await contextsOfIds(ids, 3, { excludeTokens: "none", startToken: 0 }, "x").read(1, 1)).ids]).toEqual([
      0, 7, 5,
    ]);
  });
});
