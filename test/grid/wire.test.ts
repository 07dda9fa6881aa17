/** `--wire`: what ranks exchange as 16-bit numbers, and the loss scale of fp16. */

import { beforeAll, describe, expect, it } from "vitest";
import { prepareCpuKernels } from "../../src/engine/cpu/index.ts";
import { type GridSize, whyNoRanks, work } from "./support.ts";

interface Run {
  readonly losses: readonly number[];
  readonly sent: number;
  readonly scales: readonly number[];
  readonly skips: readonly number[];
  readonly weights: string;
}

const why = whyNoRanks();
const run = (wire: string, grid: GridSize, scale?: number) =>
  work<Run>(`loop:${JSON.stringify({ wire, scale })}`, "reference,cpu", grid);

/** Bytes of f32 per step: two matrices of 24 x 6, or 48 rows of 6 for both branches. */
const EXCHANGED = { replicas: 2 * 24 * 6 * 4, shards: 2 * 48 * 6 * 4 };

describe.skipIf(why !== undefined)(`the wire under Open MPI${why === undefined ? "" : `: ${why}`}`, () => {
  beforeAll(prepareCpuKernels);

  it.each([
    ["replicas", [1, 2]],
    ["shards", [2, 1]],
  ] as const)("between %s carries half the bytes, and steps lose little", async (over, grid) => {
    const exact = await run("f32", grid);
    for (const wire of ["bf16", "fp16"]) {
      const ranks = await run(wire, grid);
      for (const [rank, found] of ranks.entries()) {
        for (const [engine, { losses, skips, scales }] of Object.entries(found)) {
          const expected = exact[rank]![engine]!.losses;
          expect(losses).toHaveLength(expected.length);
          expect(losses.at(-1)! / expected.at(-1)!).toBeCloseTo(1, 2);
          expect(losses).not.toEqual(expected);
          expect(skips.at(-1)).toBe(0);
          expect(new Set(scales)).toEqual(new Set([wire === "fp16" ? 2 ** 16 : 1]));
        }
        const [before, after] = [exact[rank]!.cpu!, found.cpu!];
        // Of two ranks, a ring sends as many bytes as there are.
        expect(before.sent - after.sent).toBe((before.losses.length * EXCHANGED[over]) / 2);
      }
      if (over === "replicas")
        for (const engine of ["reference", "cpu"]) expect(ranks[1]![engine]!.weights).toBe(ranks[0]![engine]!.weights);
    }
  });

  it("skips steps that overflow on all ranks alike, and the scale recovers", async () => {
    const ranks = await run("fp16", [2, 2], 2 ** 24);
    for (const engine of ["reference", "cpu"]) {
      const { scales, skips, losses } = ranks[0]![engine]!;
      const skipped = skips.at(-1)!;
      expect(skipped).toBeGreaterThan(0);
      // It begins at 2^24; each step that was skipped has halved it, and the others were done.
      expect(scales[0]).toBe(2 ** 24);
      expect(Math.log2(scales.at(-1)!)).toBe(24 - skipped);
      expect(skipped).toBeLessThan(24);
      expect(losses.at(-1)!).toBeLessThan(losses[0]!);
      for (const rank of ranks) {
        expect(rank[engine]!.scales).toEqual(scales);
        expect(rank[engine]!.skips).toEqual(skips);
      }
      // Replicas of one shard hold the same weights.
      for (const shard of [0, 1]) expect(ranks[2 + shard]![engine]!.weights).toBe(ranks[shard]![engine]!.weights);
    }
  });
});
