/** The engines by name: the only place that knows them all. They are loaded when asked for. */

import { messageOf, SaettaError, UsageError } from "../util/errors.ts";
import type { Engine } from "./engine.ts";

export type EngineName = "auto" | "cpu" | "reference";

export interface SelectOptions {
  /** Threads of the cpu engine; default: all processors. */
  readonly threads?: number | undefined;
  /**
   * What the cpu engine computes the encoder's product in; the codes have the same bits. Default "auto": bf16 where the processor has it.
   * The reference engine: always float64.
   */
  readonly dtype?: "auto" | "f32" | "bf16" | undefined;
  /** Told when "auto" falls back, and why. */
  readonly onNote?: ((note: string) => void) | undefined;
}

/**
 * Starts an engine. "auto" is the fastest that can run here. Rejects with SaettaError when the named one cannot; with UsageError, also
 * for "auto", when options or SAETTA_CPU ask for what the processor does not have.
 */
export async function selectEngine(name: EngineName, options: SelectOptions = {}): Promise<Engine> {
  if (name === "reference") return (await import("./reference.ts")).createReferenceEngine();
  const { createCpuEngine } = await import("./cpu/index.ts");
  const { threads, dtype = "auto" } = options;
  const asked = { ...(threads === undefined ? {} : { threads }), ...(dtype === "auto" ? {} : { dtype }) };
  if (name === "cpu") return createCpuEngine(asked);
  try {
    return await createCpuEngine(asked);
  } catch (error) {
    // What was asked for and cannot be is no reason to do something else.
    if (!(error instanceof SaettaError) || error instanceof UsageError) throw error;
    options.onNote?.(`the cpu engine cannot run (${messageOf(error)}); the reference engine is used, which is some hundred times slower`);
    return selectEngine("reference");
  }
}

/** Code paths of the cpu engine that this machine can run, the best last. Rejects with SaettaError when the engine cannot run at all. */
export async function cpuPaths(): Promise<readonly string[]> {
  return (await import("./cpu/index.ts")).cpuPaths();
}
