import { describe, expect, it } from "vitest";
import { learnableRows, memorySource } from "../../test/support/memory-source.ts";
import { train } from "./train.ts";

describe("before its first step a run says", () => {
  it("what its sample shows, and what it will take of memory and time", async () => {
    const values = learnableRows(640, 6, 12);
    // Every 20th row is a start token of norm 60 or so; one row elsewhere is spoilt.
    for (let row = 0; row < 640; row += 20) for (let i = 0; i < 6; i++) values[row * 6 + i] = 24;
    values[33 * 6] = Number.NaN;
    const tokens = Array.from({ length: 640 }, (_, row) => row % 20);
    const source = memorySource(values, 6, { sequence: 20, tokens, origin: { startToken: 0 } });
    const options = { latents: 24, k: 3, batch: 32, engine: "reference", nonFinite: "skip", out: false } as const;
    const run = await train(source, options);
    const { memory, seconds } = run.forecast;
    expect(memory.needed).toBeGreaterThan(100 * 2 ** 20);
    expect(memory.free).toBeGreaterThan(memory.needed);
    expect(seconds).toBeGreaterThan(0);
    // Start tokens of held-out sequences count too; rows of the hold-out that are not finite do
    // not.
    expect(run.data.preflight).toMatchObject({
      nonFinite: 1,
      duplicates: 0,
      excluded: { p99: expect.closeTo(24 * Math.sqrt(6), 9) },
    });
    expect(run.data.preflight?.rows).toBe(run.data.rowsPerEpoch - 1);
    await run.close();
    const given = await train(source, { ...options, mseScale: 1, latents: undefined, expansion: 4 });
    expect(given.data.preflight?.norms.max).toBe(run.data.preflight?.norms.max);
    await given.close();
  });
});
