/**
 * Replicas and shards of the cuda engine compute what one process computes, over the stand-in for CUDA, whose memory Open MPI can exchange: what replicas give each other and who updates what
 * (replicas.ts). Steps are not recorded here, for Open MPI cannot be. What the real kernels compute is for test/gpu.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { buildStandIn } from "../cuda/stand-in.ts";
import { type GridSize, whyNoRanks, work } from "./support.ts";

interface Step {
  readonly loss: number;
  readonly mse: number;
  readonly auxk_loss: number;
  readonly grad_norm: number;
  readonly dead: number;
  readonly skipped: number;
  readonly live: readonly (readonly [row: number, latent: number])[];
}

interface Run {
  readonly steps: readonly Step[];
  readonly decoder: readonly number[];
  readonly firstLatent: number;
}

const D = 12;
/** The step that steps.mjs spoils: what the others computed in it is of no use. */
const SPOILED = 60;
const GRIDS: readonly GridSize[] = [
  [1, 2],
  [1, 3],
  [2, 2],
];
/**
 * Rows of all replicas are exchanged, or gradient rows where the batch is large beside the latents; codes of the dead go by lists, or by products; with and without the norm; batches and latents
 * that the replicas do not divide.
 */
const VARIANTS = [
  { auxk: 6 },
  { auxk: 8, B: 25, clip: 0 },
  { auxk: 8, n: 50 },
  { auxk: 6, n: 50, clip: 0 },
  { auxk: 8, B: 120 },
  { auxk: 6, B: 121, n: 50, clip: 0 },
];

const why = whyNoRanks();
const folder = mkdtempSync(join(tmpdir(), "saetta-cuda-grid-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe.skipIf(why !== undefined)(`ranks of the cuda engine over a stand-in${why === undefined ? "" : `: ${why}`}`, () => {
  if (why === undefined) buildStandIn(folder);
  const env = { SAETTA_CUDA_LIBS: folder, SAETTA_CUDA_SYNC: "1" };

  it.each(VARIANTS)("%o: the same latents and losses as alone", async (variant) => {
    const what = `steps:${JSON.stringify(variant)}`;
    const [alone] = await work<Run>(what, "cuda,cuda-bf16", [1, 1], env);
    for (const grid of GRIDS) {
      const ranks = await work<Run>(what, "cuda,cuda-bf16", grid, env);
      for (const [engine, { steps, decoder }] of Object.entries(alone!)) {
        expect(steps.filter(({ dead }) => dead > 0).length).toBeGreaterThan(50);
        for (const [at, expected] of steps.entries()) {
          if (at === SPOILED) continue;
          for (const found of ranks.map((rank) => rank[engine]!.steps[at]!)) {
            for (const name of ["loss", "mse", "auxk_loss", "grad_norm"] as const) {
              expect(Math.abs(found[name] - expected[name])).toBeLessThan(1e-3);
            }
            expect([found.dead, found.skipped]).toEqual([expected.dead, expected.skipped]);
          }
          if (at > 0) continue;
          const live = ranks.flatMap((rank) => rank[engine]!.steps[at]!.live.map(String));
          expect(live.toSorted()).toEqual(expected.live.map(String).toSorted());
        }
        for (const { decoder: found, firstLatent } of ranks.map((rank) => rank[engine]!)) {
          const off = found.map((value, i) => Math.abs(value - decoder[firstLatent * D + i]!));
          expect(Math.max(...off)).toBeLessThan(1e-3);
        }
      }
    }
  }, 120_000);
});
