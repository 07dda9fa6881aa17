import { describe, expect, it } from "vitest";
import { whyNoCpu } from "../../test/support/engines.ts";
import { stepText, syntheticText } from "./print.ts";
import { timeStep } from "./step.ts";
import { benchSynthetic } from "./synthetic.ts";

const noCpu = whyNoCpu();

describe("training on a dictionary that is known", () => {
  if (noCpu !== undefined) it.skip(`cpu: ${noCpu}`, () => undefined);

  it.skipIf(noCpu !== undefined)("finds it again", async () => {
    const report = await benchSynthetic({
      dictionary: { directions: 48, width: 24, active: 2, rows: 150_000, seed: 1 },
      training: { latents: 96, k: 2, batch: 256, lr: 3e-3, engine: "cpu", threads: 1 },
    });
    expect(report.reason).toBe("done");
    expect(report.rows).toBe(149_760);
    expect(report.recovery.above[1].cosine).toBe(0.95);
    expect(report.recovery.above[1].share).toBeGreaterThanOrEqual(0.9);
    expect(report.recovery.matches.length).toBeGreaterThanOrEqual(43);
    expect(syntheticText(report)).toContain(`${report.recovery.matches.length} matched`);
  });

  it.skipIf(noCpu !== undefined)("finds it with AuxK too, which revives latents that have died", async () => {
    const { dead, recovery } = await benchSynthetic({
      dictionary: { directions: 48, width: 24, active: 2, rows: 150_000, seed: 1 },
      training: { latents: 96, k: 2, batch: 256, lr: 3e-3, auxk: 8, deadTokens: 2000, engine: "cpu", threads: 1 },
    });
    expect(dead.most).toBeGreaterThan(5);
    expect(dead.revived).toBeGreaterThan(5);
    expect(recovery.above[1].share).toBeGreaterThanOrEqual(0.9);
  });

  it("finds nothing before the first step", async () => {
    const { reason, rows, recovery } = await benchSynthetic({
      dictionary: { directions: 48, width: 24, active: 2, rows: 1000 },
      training: { latents: 96, k: 2, batch: 100, engine: "reference" },
      signal: AbortSignal.abort(),
    });
    expect({ reason, rows }).toEqual({ reason: "stopped", rows: 0 });
    expect(recovery.above[1].share).toBeLessThan(0.1);
  });
});

describe("the time of a step", () => {
  it("is told with its shape", async () => {
    const sizes = { d: 8, n: 16, k: 2, auxk: 4 };
    const time = await timeStep({ sizes, batch: 10, seconds: 0, engine: "reference" });
    expect(time).toMatchObject({ sizes, batch: 10, steps: 5 });
    expect(stepText(time)).toMatch(/^d 8, n 16, k 2, auxk 4, batch 10: .* \(median of 5 steps, \d latents dead\)$/);
    expect(time.rowsPerSecond).toBeCloseTo(10_000 / time.millisecondsPerStep);
  });
});
