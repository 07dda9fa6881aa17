/** The engines that a test can run here. */

import { spawnSync } from "node:child_process";
import type { Engine } from "../../src/engine/engine.ts";

/**
 * Why the cpu engine cannot be tested here; undefined when it can. Only a missing compiler is a
 * reason: whatever else goes wrong is a failure.
 */
export function whyNoCpu(): string | undefined {
  const compiler = process.env.CXX || "c++";
  return spawnSync(compiler, ["--version"]).status === 0 ? undefined : `no compiler: ${compiler} does not run`;
}

export async function cpuEngine(): Promise<Engine> {
  const { createCpuEngine } = await import("../../src/engine/cpu/index.ts");
  return createCpuEngine({ threads: 2 });
}
