import { describe, expect, it } from "vitest";
import { createReferenceEngine } from "../engine/reference.ts";
import { OperationBench } from "./operations.ts";
import { StepBench } from "./step.ts";
import { DEAD_EVERY, type Situation } from "./workload.ts";

const NOISE: Situation = { name: "noise", deadEvery: 0, skewed: false };

describe("the situations that a step is timed in", () => {
  it("keep the latents dead that are dead", async () => {
    await using engine = createReferenceEngine();
    const shape = { d: 64, n: 2048, k: 2, auxk: 8 };
    const bench = new StepBench(engine, shape, 32);
    bench.enter(8, { ...NOISE, name: "dead", deadEvery: DEAD_EVERY });
    for (let step = 0; step < 3; step++) expect((await bench.step()).dead).toBe(shape.n / 4);
    bench.enter(8, NOISE);
    expect((await bench.step()).dead).toBe(0);
  });

  it("have, where rows are skewed, each of 20 latents on in about half of them", async () => {
    await using engine = createReferenceEngine();
    const bench = new StepBench(engine, { d: 768, n: 1024, k: 32, auxk: 0 }, 32);
    bench.enter(0, { ...NOISE, name: "skewed", skewed: true });
    await bench.step();
    expect(await bench.heavyShare()).toBeGreaterThan(0.2);
    bench.enter(0, NOISE);
    await bench.step();
    expect(await bench.heavyShare()).toBeLessThan(0.1);
  });
});

describe("the operations of a step", () => {
  it("are each measured, in a setup in which they can run", async () => {
    await using engine = createReferenceEngine();
    const bench = new OperationBench(engine, { d: 8, n: 96, k: 2, auxk: 4 }, 5);
    await bench.enter();
    for (const operation of bench.operations) {
      const { ms, cpuMs } = await bench.time(operation);
      expect(ms, operation.name).toBeGreaterThanOrEqual(0);
      expect(cpuMs, operation.name).toBeGreaterThanOrEqual(0);
    }
  });
});
