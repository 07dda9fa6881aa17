/** The engines by name: the only place that knows them all. They are loaded when asked for. */

import type { Collective } from "../collective/collective.ts";
import { messageOf, SaettaError, UsageError } from "../util/errors.ts";
import type { Engine } from "./engine.ts";

export type EngineName = "auto" | "cpu" | "cuda" | "reference";

/** What products are computed in; "auto": bf16 on a card, on the cpu the fastest that is exact. */
export type Dtype = "auto" | "f32" | "bf16" | "fp16";

export interface SelectOptions {
  /** Threads of the cpu engine; default: all processors. */
  readonly threads?: number | undefined;
  /**
   * On the cpu only the encoder's product can be in bf16, and the codes have the same bits. Default "auto". The reference engine: always float64.
   */
  readonly dtype?: Dtype | undefined;
  /** For inference: "auto" is f32 on a card, too, so that near ties choose the latents that they choose elsewhere. */
  readonly inference?: boolean | undefined;
  /** The ranks that it computes with; default: it is alone. Of the kind that `collectiveKind` says. */
  readonly collective?: Collective | undefined;
  /** Told when "auto" falls back, and why. */
  readonly onNote?: ((note: string) => void) | undefined;
}

/**
 * Starts an engine. "auto" is the fastest that can run here. Rejects with SaettaError when the named one cannot; with UsageError, also
 * for "auto", when options or SAETTA_CPU ask for what the processor does not have.
 */
export async function selectEngine(name: EngineName, options: SelectOptions = {}): Promise<Engine> {
  if (name === "reference") return (await import("./reference.ts")).createReferenceEngine(options.collective);
  if (name === "cuda") return cuda(options);
  if (name === "cpu") return cpu(options);
  // Ranks that are joined by Open MPI have agreed to compute on processors.
  if (options.collective?.kind === "mpi") return cpu(options);
  return (await cudaIfThere(options)) ?? cpuIfThere(options);
}

/** What joins ranks that compute on this engine. */
export async function collectiveKind(name: EngineName): Promise<"nccl" | "mpi"> {
  if (name === "cuda") return "nccl";
  return name === "auto" && (await import("./cuda/libraries.ts")).cardIsThere() ? "nccl" : "mpi";
}

/** Compiles what the engine needs, if that has not been done: of several ranks of a host, one does it before the others start theirs. */
export async function prepareEngine(name: EngineName, kind: Collective["kind"]): Promise<void> {
  if (kind === "mpi" && name !== "reference") await (await import("./cpu/index.ts")).prepareCpuKernels();
}

/** Code paths of the cpu engine that this machine can run, the best last. Rejects with SaettaError when the engine cannot run at all. */
export async function cpuPaths(): Promise<readonly string[]> {
  return (await import("./cpu/index.ts")).cpuPaths();
}

/** What the cuda engine has found, and where. */
export async function cudaLibraries(): Promise<readonly string[]> {
  return (await import("./cuda/found.ts")).findLibraries();
}

async function cuda({ dtype = "auto", inference = false, collective }: SelectOptions): Promise<Engine> {
  const { createCudaEngine } = await import("./cuda/index.ts");
  const chosen = dtype === "auto" && inference ? "f32" : dtype;
  return createCudaEngine({ ...(chosen === "auto" ? {} : { dtype: chosen }), ...(collective && { collective }) });
}

async function cpu({ threads, dtype = "auto", collective }: SelectOptions): Promise<Engine> {
  if (dtype === "fp16")
    throw new UsageError("the cpu engine does not compute in fp16", {
      mend: "use --dtype f32 or bf16, or --engine cuda",
    });
  const { createCpuEngine } = await import("./cpu/index.ts");
  return createCpuEngine({
    ...(threads === undefined ? {} : { threads }),
    ...(dtype === "auto" ? {} : { dtype }),
    ...(collective && { collective }),
  });
}

/** A card that is there and cannot be used is worth a note; one that is not there is not. */
async function cudaIfThere(options: SelectOptions): Promise<Engine | undefined> {
  const { cardIsThere } = await import("./cuda/libraries.ts");
  if (!cardIsThere()) return undefined;
  try {
    return await cuda(options);
  } catch (error) {
    if (!(error instanceof SaettaError) || error instanceof UsageError) throw error;
    options.onNote?.(`there is an NVIDIA card, which cannot be used (${messageOf(error)}); the cpu engine is used`);
    return undefined;
  }
}

async function cpuIfThere(options: SelectOptions): Promise<Engine> {
  try {
    return await cpu(options);
  } catch (error) {
    // What was asked for and cannot be is no reason to do something else.
    if (!(error instanceof SaettaError) || error instanceof UsageError) throw error;
    options.onNote?.(
      `the cpu engine cannot run (${messageOf(error)}); the reference engine is used, which is some hundred times slower`,
    );
    return selectEngine("reference");
  }
}
