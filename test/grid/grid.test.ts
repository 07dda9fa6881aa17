/**
 * Replicas and shards compute what one process computes: each operation, and a hundred steps on six
 * grids.
 */

import { beforeAll, describe, expect, it } from "vitest";
import { prepareCpuKernels } from "../../src/engine/cpu/index.ts";
import { type GridSize, whyNoRanks, work } from "./support.ts";

type Pair = readonly [row: number, latent: number];

interface Step {
  readonly loss: number;
  readonly mse: number;
  readonly auxk_loss: number;
  readonly grad_norm: number;
  readonly l0: number;
  readonly dead: number;
  readonly skipped: number;
  readonly live: readonly Pair[];
  readonly dead_pairs: readonly Pair[];
}

interface Run {
  readonly steps: readonly Step[];
  /** [n,d] of this rank's shard. */
  readonly decoder: readonly number[];
  readonly firstLatent: number;
  /** Latents whose rows were drawn anew. */
  readonly withoutRow: readonly number[];
}

interface Reads {
  readonly losses: readonly number[];
  readonly read: number;
  readonly skipped: number;
}

const GRIDS: readonly GridSize[] = [
  [1, 2],
  [2, 1],
  [2, 2],
  [1, 3],
  [3, 1],
];
/**
 * The step that is skipped, as a weight of one rank is not finite (steps.mjs); what the others
 * computed in it is of no use.
 */
const SPOILED = 60;
const LOSSES = ["loss", "mse", "auxk_loss", "grad_norm"] as const;

const why = whyNoRanks();

describe.skipIf(why !== undefined)(`ranks under Open MPI${why === undefined ? "" : `: ${why}`}`, () => {
  let alone: Record<string, Run>;

  beforeAll(async () => {
    await prepareCpuKernels();
    [alone = {}] = await work<Run>("steps", "reference,cpu", [1, 1]);
  });

  it("the steps are worth comparing: latents die and come back, all losses count, one step is skipped", () => {
    for (const { steps, decoder, withoutRow } of Object.values(alone)) {
      for (const latent of withoutRow)
        expect(Math.hypot(...decoder.slice(12 * latent, 12 * latent + 12))).toBeCloseTo(1, 5);
      expect(steps).toHaveLength(100);
      expect(steps.filter(({ dead }) => dead > 0).length).toBeGreaterThan(50);
      expect(
        steps.filter(({ auxk_loss, dead_pairs }) => auxk_loss > 0 && dead_pairs.length > 0).length,
      ).toBeGreaterThan(50);
      expect(steps.at(-1)!.loss).toBeLessThan(steps[0]!.loss / 2);
      expect(steps.map(({ skipped }) => skipped)).toEqual(steps.map((_, step) => (step < SPOILED ? 0 : 1)));
    }
  });

  it.each(GRIDS)("%i shards x %i replicas: the same latents and losses as alone", async (shards, replicas) => {
    const ranks = await work<Run>("steps", "reference,cpu", [shards, replicas]);
    const together = (engine: string, step: number, of: "live" | "dead_pairs") => {
      const all = ranks.flatMap((found) => found[engine]!.steps[step]![of]);
      return all.map(String).toSorted();
    };
    const before = (engine: string, step: number, of: "live" | "dead_pairs") =>
      alone[engine]!.steps[step]![of].map(String).toSorted();

    for (const found of ranks.flatMap((rank) => Object.values(rank))) expect(found.steps[SPOILED]!.skipped).toBe(1);
    for (const step of Array.from({ length: 100 }, (_, i) => i).filter((i) => i !== SPOILED)) {
      for (const of of ["live", "dead_pairs"] as const)
        expect(together("reference", step, of)).toEqual(before("reference", step, of));
      for (const [engine, allowed] of [
        ["reference", 1e-9],
        ["cpu", 1e-5],
      ] as const) {
        const expected = alone[engine]!.steps[step]!;
        for (const found of ranks.map((rank) => rank[engine]!.steps[step]!)) {
          for (const name of LOSSES) expect(Math.abs(found[name] - expected[name])).toBeLessThan(allowed);
          expect([found.dead, found.skipped]).toEqual([expected.dead, expected.skipped]);
          if (engine === "reference") expect(found.l0).toBe(expected.l0);
        }
      }
    }
    expect(together("cpu", 0, "live")).toEqual(before("cpu", 0, "live"));
    expect(together("cpu", 0, "dead_pairs")).toEqual(before("cpu", 0, "dead_pairs"));
    // The weights too; and rows that are drawn anew depend on the number of the latent among all.
    for (const rank of ranks) {
      for (const [engine, allowed] of [
        ["reference", 1e-9],
        ["cpu", 1e-3],
      ] as const) {
        const { decoder, firstLatent } = rank[engine]!;
        const width = 12;
        const expected = alone[engine]!.decoder.slice(firstLatent * width, firstLatent * width + decoder.length);
        const off = expected.map((value, i) => Math.abs(value - decoder[i]!));
        expect(Math.max(...off)).toBeLessThan(allowed);
      }
    }
    const last = new Set(before("cpu", 99, "live"));
    const kept = together("cpu", 99, "live").filter((pair) => last.has(pair)).length;
    expect(kept / last.size).toBeGreaterThanOrEqual(0.999);
  });

  it.each([
    [2, 2],
    [3, 1],
  ] as GridSize[])("%i shards x %i replicas: every operation of an engine, on every engine", async (shards, replicas) => {
    const ranks = await work<Record<string, string>>("cases", "reference,cpu", [shards, replicas]);
    for (const found of ranks) {
      for (const cases of Object.values(found)) {
        expect(Object.keys(cases).length).toBeGreaterThan(5);
        for (const [name, result] of Object.entries(cases)) expect(`${name}: ${result}`).toBe(`${name}: ok`);
      }
    }
  });

  it.each([
    "stop",
    "skip",
  ])("replicas read their part of the rows, and train on those of one (%s)", async (nonFinite) => {
    const found = async (grid: GridSize) =>
      (await work<Reads>(`loop:${JSON.stringify({ nonFinite })}`, "reference,cpu", grid)).flatMap((rank) =>
        Object.entries(rank),
      );
    const alone = new Map(await found([1, 1]));
    const grids = { stop: ["1 2", "1 4", "2 2"], skip: ["1 3"] }[nonFinite] ?? [];
    for (const grid of grids) {
      const [shards = 1, replicas = 1] = grid.split(" ").map(Number);
      for (const [engine, { losses, read, skipped }] of await found([shards, replicas])) {
        const one = alone.get(engine)!;
        expect(skipped).toBe(one.skipped);
        expect(losses).toHaveLength(one.losses.length);
        const allowed = engine === "reference" ? 1e-9 : 1e-4;
        for (const [step, loss] of losses.entries()) expect(Math.abs(loss - one.losses[step]!)).toBeLessThan(allowed);
        // Within a block of 8 rows for each of 12 windows, and what comes from other lanes.
        expect(Math.abs(read - one.read / replicas)).toBeLessThan(12 * 8 * 24 + (nonFinite === "skip" ? 500 * 24 : 0));
      }
    }
  });

  it("the operations of the collective, and what goes over the rendezvous", async () => {
    const [shards, replicas] = [2, 2];
    const ranks = await work<Record<string, Record<string, unknown>>>("operations", "reference", [shards, replicas]);
    for (const [rank, { reference }] of ranks.entries()) {
      const found = reference!;
      const [shard, replica] = [rank % shards, Math.floor(rank / shards)];
      expect(found.grid).toEqual({ rank, size: 4, shards, replicas, shard, replica });
      expect(found.exchanged).toEqual([0, 1, 2, 3].map((each) => ({ rank: each, text: 'à\n"', nothing: null })));
      const groups = {
        shards: [0, 1].map((s) => replica * 2 + s),
        replicas: [0, 1].map((r) => r * 2 + shard),
        all: [0, 1, 2, 3],
      };
      for (const [over, members] of Object.entries(groups)) {
        const [place, size] = [members.indexOf(rank), members.length];
        expect(found[over]).toEqual({
          rank: place,
          size,
          gathered: members.flatMap((_, i) => [i, 10 * i]),
          scattered: [0, 1, 2].map((i) => size * (3 * place + i) + (size * (size - 1)) / 2),
          told: [members.at(-1), 7],
        });
      }
    }
  });
});
