/** The cuda engine on a card: `npm run test:gpu`. Without one it says what it skips and why. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CASES, selfTest } from "../../src/engine/conformance.ts";
import { COMPUTE } from "../../src/engine/cuda/contract.ts";
import { createCudaEngine } from "../../src/engine/cuda/index.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { messageOf } from "../../src/util/errors.ts";
import { CHECKS } from "./checks.ts";
import { EXACT_CHECKS } from "./exact.ts";
import { RULE_CHECKS } from "./rules.ts";

const why = await createCudaEngine().then((engine) => engine.close(), messageOf);

for (const dtype of COMPUTE) {
  if (why !== undefined) {
    it.skip(`cuda engine, ${dtype}: ${why}`, () => undefined);
    continue;
  }
  describe(`cuda engine, ${dtype}`, () => {
    let engine: Engine;
    beforeAll(async () => {
      engine = await createCudaEngine({ dtype });
    });
    afterAll(() => engine.close());

    it.for(CASES)("$name", async ({ run }, { skip }) => {
      const result = await run(engine, createReferenceEngine());
      if ("skipped" in result) skip(result.skipped);
      else expect(result.worst).toBeLessThanOrEqual(1);
    });

    it("self-test", async () => {
      expect(await selfTest(engine, { most: 16 })).toBeLessThan(Math.max(1e-4, 8 * (engine.rounding ?? 0)));
    });

    it.for([...CHECKS, ...RULE_CHECKS, ...EXACT_CHECKS])("$name", async ({ run }) => {
      expect(await run(createCudaEngine, dtype)).toBeTruthy();
    });
  });
}
