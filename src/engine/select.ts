/** The engines by name: the only place that knows them all. They are loaded when asked for. */

import { messageOf, SaettaError } from "../util/errors.ts";
import type { Engine } from "./engine.ts";

export type EngineName = "auto" | "cpu" | "reference";

export interface SelectOptions {
  /** Threads of the cpu engine; default: all processors. */
  readonly threads?: number | undefined;
  /** Told when "auto" falls back, and why. */
  readonly onNote?: ((note: string) => void) | undefined;
}

/** Starts an engine. "auto" is the fastest that can run here. Rejects with SaettaError when the named one cannot. */
export async function selectEngine(name: EngineName, options: SelectOptions = {}): Promise<Engine> {
  if (name === "reference") return (await import("./reference.ts")).createReferenceEngine();
  const { createCpuEngine } = await import("./cpu/index.ts");
  const threads = options.threads === undefined ? {} : { threads: options.threads };
  if (name === "cpu") return createCpuEngine(threads);
  try {
    return await createCpuEngine(threads);
  } catch (error) {
    if (!(error instanceof SaettaError)) throw error;
    options.onNote?.(`the cpu engine cannot run (${messageOf(error)}); the reference engine is used, which is some hundred times slower`);
    return selectEngine("reference");
  }
}
