import { spawnSync } from "node:child_process";
import { afterAll, describe, expect, it } from "vitest";
import { solo } from "../collective/solo.ts";
import { CASES, selfTest } from "./conformance.ts";
import { GRID_CASES } from "./conformance-grid.ts";
import { cpuPaths, createCpuEngine } from "./cpu/index.ts";
import type { Engine } from "./engine.ts";
import { createReferenceEngine } from "./reference.ts";

/**
 * All cases on one engine; a case that is skipped says why. `relative`: what the self-test may
 * find.
 */
function conformance(name: string, engine: Engine, relative: number): void {
  describe(`conformance of ${name}`, () => {
    it.for(CASES)("$name", async ({ run }, { skip }) => {
      const result = await run(engine, createReferenceEngine());
      if ("skipped" in result) skip(result.skipped);
      else expect(result.worst).toBeLessThanOrEqual(1);
    });

    it.for(GRID_CASES)("alone, $name", ({ run }) => run(engine, solo()));

    it("self-test", async () => {
      expect(await selfTest(engine, { most: 16 })).toBeLessThan(relative);
    });

    afterAll(() => engine[Symbol.asyncDispose]());
  });
}

/** `npm test` takes the fastest instruction set, `npm run test:full` the others. */
const full = process.env.SAETTA_TESTS === "full";
if (!full) conformance("reference", createReferenceEngine(), 1e-14);

const compiler = process.env.CXX || "c++";
if (spawnSync(compiler, ["--version"]).status !== 0) {
  it.skip(`conformance of cpu: no compiler, ${compiler} does not run`, () => undefined);
} else {
  const paths = await cpuPaths();
  for (const path of full ? paths.slice(0, -1) : paths.slice(-1))
    conformance(`cpu, ${path}`, await createCpuEngine({ threads: 3, path }), 1e-4);
}
