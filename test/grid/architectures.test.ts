/** Replicas and shards of each architecture compute what one process computes. */

import { beforeAll, describe, expect, it } from "vitest";
import { prepareCpuKernels } from "../../src/engine/cpu/index.ts";
import { type GridSize, whyNoRanks, work } from "./support.ts";

interface Run {
  readonly steps: readonly Readonly<Record<string, number | readonly number[]>>[];
  readonly heldOut: Readonly<Record<string, number | readonly number[]>>;
  readonly params: Readonly<Record<string, { readonly sharded: boolean; readonly values: readonly number[] }>>;
}
type Runs = Readonly<Record<string, Run>>;

const GRIDS: readonly GridSize[] = [
  [1, 2],
  [2, 1],
  [2, 2],
  [1, 3],
  [3, 1],
];
/** What sums in another order may change, after 20 steps. */
const ALLOWED = { reference: 1e-9, cpu: 1e-4 } as const;

const why = whyNoRanks();

function near(what: string, found: readonly number[], expected: readonly number[], allowed: number): void {
  expect(found, what).toHaveLength(expected.length);
  for (const [i, value] of expected.entries()) {
    const off = Math.abs(found[i]! - value);
    if (!(off <= allowed * Math.max(1, Math.abs(value))) && !Object.is(found[i], value))
      throw new Error(`${what}[${i}] is ${found[i]}, alone ${value}`);
  }
}

describe.skipIf(why !== undefined)(`architectures under Open MPI${why === undefined ? "" : `: ${why}`}`, () => {
  let alone: Record<string, Runs>;

  beforeAll(async () => {
    await prepareCpuKernels();
    [alone = {}] = await work<Runs>("architectures", "reference,cpu", [1, 1]);
  });

  it("the steps are worth comparing: latents die, losses fall, none is skipped", () => {
    for (const [name, { steps }] of Object.values(alone).flatMap((runs) => Object.entries(runs))) {
      expect(steps.at(-1)!.skipped, name).toBe(0);
      expect(steps.at(-1)!.mse, name).toBeLessThan(steps[0]!.mse as number);
      expect(Math.max(...steps.map(({ dead }) => dead as number)), name).toBeGreaterThan(0);
    }
  });

  it.each(GRIDS)("%i shards x %i replicas: the metrics and parameters of one process", async (shards, replicas) => {
    const ranks = await work<Runs>("architectures", "reference,cpu", [shards, replicas]);
    for (const [engine, allowed] of Object.entries(ALLOWED)) {
      for (const [name, { steps, heldOut, params }] of Object.entries(alone[engine]!)) {
        for (const found of ranks.map((rank) => rank[engine]![name]!)) {
          for (const [metric, value] of Object.entries(heldOut))
            near(`${engine}, ${name}: ${metric}`, [found.heldOut[metric]!].flat(), [value].flat(), allowed);
          for (const [step, metrics] of steps.entries())
            for (const [metric, value] of Object.entries(metrics))
              near(
                `${engine}, ${name}: ${metric} of step ${step}`,
                [found.steps[step]![metric]!].flat(),
                [value].flat(),
                allowed,
              );
        }
        for (const [param, { sharded, values }] of Object.entries(params)) {
          const parts = ranks.map((rank) => rank[engine]![name]!.params[param]!.values);
          for (let replica = 0; replica < replicas; replica++) {
            const own = parts.slice(replica * shards, (replica + 1) * shards);
            const all = sharded ? own.flat() : own[0]!;
            near(`${engine}, ${name}: ${param} of replica ${replica}`, all, values, 10 * allowed);
          }
        }
      }
    }
  });
});
