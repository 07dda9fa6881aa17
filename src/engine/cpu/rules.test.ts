/** Selection rules on the cpu engine, where the conformance cases are too small to show a fault. */

import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { type Draw, draw } from "../conformance-draw.ts";
import { GuardedStep } from "../conformance-guarded-step.ts";
import { checkSteps } from "../conformance-step.ts";
import { Tally } from "../conformance-tally.ts";
import { NONE } from "../engine.ts";
import { createReferenceEngine } from "../reference.ts";
import { cpuPaths, createCpuEngine } from "./index.ts";

const paths = await cpuPaths().catch(() => []);

const RULES: Readonly<Record<string, Partial<Draw>>> = {
  "topk, fewer than slots": { hyper: { rowK: 2 } },
  batchtopk: { rule: "batchtopk" },
  cut: { rule: "cut", threshold: () => 0.5 },
  "threshold and band": { rule: "threshold", band: 30, hyper: { bandwidth: 0.2 } },
};

/** What is on, and a hash of all that the step holds. */
async function selected(threads: number, rule: Partial<Draw>): Promise<{ on: number; hash: string }> {
  await using engine = await createCpuEngine({ threads });
  const guarded = await GuardedStep.create(
    engine,
    draw({ d: 21, n: 203, k: 5, auxk: 9, B: 389, exact: true, ...rule }),
  );
  await guarded.load();
  await guarded.select();
  const hash = createHash("sha256");
  for (const name of guarded.names) hash.update(guarded.get(name));
  return { on: guarded.get("live.latent").filter((j) => j !== NONE).length, hash: hash.digest("hex") };
}

describe.skipIf(paths.length === 0)("the codes of a rule", () => {
  it.each(Object.entries(RULES))("are the same on 1, 2, 3 and 5 threads: %s", async (_, rule) => {
    const alone = await selected(1, rule);
    expect(alone.on).toBeGreaterThan(500);
    for (const threads of [2, 3, 5]) expect(await selected(threads, rule), `${threads} threads`).toEqual(alone);
  });

  // 24 MiB of rows are encoded at a time.
  it.each([
    "batchtopk",
    "threshold and band",
  ])("are those of the reference for rows of several pieces: %s", async (name) => {
    await using engine = await createCpuEngine({ threads: 2 });
    const tally = new Tally();
    const setup = draw({
      d: 3000,
      n: 4,
      k: 2,
      auxk: 1,
      B: 2200,
      exact: true,
      ...RULES[name],
      band: RULES[name]!.band && 4,
    });
    await checkSteps(tally, engine, createReferenceEngine(), setup, { exact: true, until: "selection" });
    expect(tally.worst).toBeLessThanOrEqual(1);
  });
});
