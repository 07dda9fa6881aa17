import { expect, it } from "vitest";
import { memorySource, numberedRows } from "../../test/support/memory-source.ts";
import { AFTER, BEFORE } from "./kept-firings.ts";
import { PassageTexts } from "./passage-texts.ts";

it("stores each token of the passages once, in order, and finds it again", async () => {
  const rows = 1000;
  const source = memorySource(numberedRows(rows), 1, {
    tokens: Array.from({ length: rows }, (_, row) => 10_000 + row),
    sequence: 500,
  });
  const texts = new PassageTexts(source);
  // Overlapping, the same twice, touching, sharing three rows, three rows apart, and at both ends
  // of a sequence.
  const firings = [
    700,
    700 + BEFORE + AFTER - 2,
    850,
    850 + BEFORE + AFTER + 4,
    300,
    100,
    110,
    300,
    300 + BEFORE + AFTER + 1,
    600,
    499,
    500,
    0,
    999,
  ];
  for (const number of firings) await texts.add(number);
  texts.join();
  const covered = new Set<number>();
  for (const number of firings) {
    const { first, end } = await texts.spanOf(number);
    expect([first, end]).toEqual([
      Math.max(number < 500 ? 0 : 500, number - BEFORE),
      Math.min(number < 500 ? 500 : 1000, number + AFTER + 1),
    ]);
    for (let row = first; row < end; row++) covered.add(row);
  }
  const all: string[] = [];
  for await (const some of texts.texts(undefined)) all.push(...some);
  expect(all).toEqual([...covered].sort((a, b) => a - b).map((row) => `⟨${10_000 + row}⟩`));
  for (const number of firings) {
    const { first, end } = await texts.spanOf(number);
    const begin = texts.textOf(first);
    expect(all.slice(begin, begin + end - first)).toEqual(
      Array.from({ length: end - first }, (_, i) => `⟨${10_000 + first + i}⟩`),
    );
  }
});
