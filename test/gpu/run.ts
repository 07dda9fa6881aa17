/**
 * The tests of the cuda engine without a test runner, for machines that have a card and little
 * else: `node test/gpu/run.ts [f32 bf16 fp16] [1/4]` (Node 24). With 1/4 only the first, fifth,
 * ninth of them and so on, for four processes that share the work where each is slow, as under
 * compute-sanitizer.
 */

import { CASES } from "../../src/engine/conformance.ts";
import { type Compute, createCudaEngine } from "../../src/engine/cuda/index.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { CHECKS } from "./checks.ts";
import { EXACT_CHECKS } from "./exact.ts";
import { RULE_CHECKS } from "./rules.ts";

const words = process.argv.slice(2);
const asked = words.filter((word) => !word.includes("/"));
const [part, parts] = (words.find((word) => word.includes("/")) ?? "1/1").split("/").map(Number) as [number, number];
let [failed, met] = [0, 0];
for (const dtype of (asked.length > 0 ? asked : ["f32", "bf16", "fp16"]) as Compute[]) {
  const engine = await createCudaEngine({ dtype });
  console.log(engine.description);
  for (const { name, run } of CASES) {
    await attempt(name, async () => {
      const result = await run(engine, createReferenceEngine());
      if ("skipped" in result) return `skipped: ${result.skipped}`;
      if (!(result.worst <= 1)) throw new Error(`off by ${result.worst} of what rounding allows`);
      return result.worst.toPrecision(2);
    });
  }
  await engine.close();
  for (const { name, run } of [...CHECKS, ...RULE_CHECKS, ...EXACT_CHECKS])
    await attempt(name, () => run(createCudaEngine, dtype));
}
console.log(failed === 0 ? "all passed" : `${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;

async function attempt(name: string, body: () => Promise<string>): Promise<void> {
  if (met++ % parts !== part - 1) return;
  try {
    console.log(`ok    ${name}: ${await body()}`);
  } catch (error) {
    failed++;
    console.log(`FAIL  ${name}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
