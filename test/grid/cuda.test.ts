/**
 * Replicas and shards of the cuda engine compute what one process computes, over the stand-in for
 * CUDA, whose memory Open MPI can exchange: what replicas give each other and who updates what
 * (owned-rows.ts). Steps are not recorded here, for Open MPI cannot be. What the real kernels
 * compute is for test/gpu.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildStandIn } from "../cuda/stand-in.ts";
import { type GridSize, whyNoRanks, work } from "./support.ts";

interface Step {
  readonly loss: number;
  readonly mse: number;
  readonly auxk_loss: number;
  readonly grad_norm: number;
  readonly dead: number;
  readonly live: readonly (readonly [row: number, latent: number])[];
}

interface Run {
  readonly steps: readonly Step[];
  readonly decoder: readonly number[];
  readonly firstLatent: number;
}

const D = 12;
const ENGINES = ["cuda", "cuda-bf16"] as const;
const count = 20;
/**
 * Rows of all replicas are exchanged, or gradient rows where the batch is large beside the latents;
 * codes of the dead go by lists, or by products; with and without the norm; batches and latents
 * that the replicas do not divide.
 */
const VARIANTS = [
  { count, auxk: 6 },
  { count, auxk: 8, B: 25, clip: 0 },
  { count, auxk: 8, n: 50 },
  { count, auxk: 6, n: 50, clip: 0 },
  { count, auxk: 8, B: 120 },
  { count, auxk: 6, B: 121, n: 50, clip: 0 },
];
const VARIANTS_WORD = `variants:${JSON.stringify(VARIANTS)}`;

const why = whyNoRanks();
const folder = mkdtempSync(join(tmpdir(), "saetta-cuda-grid-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe.skipIf(why !== undefined)(
  `ranks of the cuda engine over a stand-in${why === undefined ? "" : `: ${why}`}`,
  () => {
    const env = { SAETTA_CUDA_LIBS: folder, SAETTA_CUDA_SYNC: "1" };
    let alone: Record<string, readonly Run[]>;
    beforeAll(async () => {
      buildStandIn(folder);
      [alone = {}] = await work<Run[]>(VARIANTS_WORD, ENGINES.join(), [1, 1], env);
    });

    it("the steps are worth comparing: latents die and count, losses fall", () => {
      for (const { steps } of Object.values(alone).flat()) {
        expect(steps).toHaveLength(count);
        expect(steps.filter(({ dead, auxk_loss }) => dead > 0 && auxk_loss > 0).length).toBeGreaterThan(10);
        expect(steps.at(-1)!.loss).toBeLessThan(steps[0]!.loss);
      }
    });

    it.each([
      [1, 3],
      [2, 2],
    ] as GridSize[])("%i shards x %i replicas: the same latents and losses as alone", async (shards, replicas) => {
      const ranks = await work<Run[]>(VARIANTS_WORD, ENGINES.join(), [shards, replicas], env);
      for (const engine of ENGINES) {
        for (const [variant, { steps, decoder }] of alone[engine]!.entries()) {
          const all = ranks.map((rank) => rank[engine]![variant]!);
          for (const [at, expected] of steps.entries()) {
            for (const found of all.map((run) => run.steps[at]!)) {
              // A selection that rounding to bf16 decides otherwise shows at once; in float32 there
              // is none.
              for (const name of ["loss", "mse", "auxk_loss", "grad_norm"] as const) {
                expect(Math.abs(found[name] - expected[name])).toBeLessThan(engine === "cuda" ? 1e-5 : 1e-3);
              }
              expect(found.dead).toBe(expected.dead);
            }
          }
          const live = all.flatMap((run) => run.steps[0]!.live.map(String));
          expect(live.toSorted()).toEqual(steps[0]!.live.map(String).toSorted());
          for (const { decoder: found, firstLatent } of all) {
            const off = found.map((value, i) => Math.abs(value - decoder[firstLatent * D + i]!));
            expect(Math.max(...off)).toBeLessThan(engine === "cuda" ? 1e-5 : 1e-3);
          }
        }
      }
    });
  },
);
