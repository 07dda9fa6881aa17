/**
 * The engines: the only place that knows them all, and what of each must be known before it is
 * loaded. The order is that of "auto": the first that this machine has. An engine is a folder, or a
 * file, and an entry here.
 */

import type { Collective } from "../collective/collective.ts";
import type { Engine } from "./engine.ts";
import type { LogSums } from "./log-sums.ts";

/** What products are computed in; "auto": bf16 on a card, on the cpu the fastest that is exact. */
export type Dtype = "auto" | "f32" | "bf16" | "fp16";

/** What every engine is created with; it ignores what it has no use for. */
export interface CreateOptions {
  /** Threads of the cpu engine; default: all processors. */
  readonly threads?: number | undefined;
  readonly dtype?: Exclude<Dtype, "auto"> | undefined;
  /** The ranks that it computes with; default: it is alone. */
  readonly collective?: Collective | undefined;
}

export interface EngineEntry {
  readonly name: string;
  /** What joins its ranks. */
  readonly collective: Exclude<Collective["kind"], "solo">;
  /** What it can be asked to compute products in. */
  readonly dtypes: readonly Exclude<Dtype, "auto">[];
  /** What "auto" is for inference. Default: as for training. */
  readonly inferenceDtype?: Exclude<Dtype, "auto">;
  /** Whether "auto" should try it: a quick look for signs of the hardware. */
  probe(): Promise<boolean>;
  /** What "auto" says when it cannot be created although `probe` said yes, before the reason. */
  readonly unusable: string;
  /** What "auto" adds when it falls back to this one. */
  readonly remark: string;
  /** Compiles what it needs, if that has not been done. */
  prepare(): Promise<void>;
  /**
   * Rejects with SaettaError when it cannot run; with UsageError when the options ask for what the
   * machine does not have.
   */
  create(options: CreateOptions): Promise<Engine>;
  /** For `doctor`: a name and what was found. `created`: whether the engine could be. */
  details(created: boolean): Promise<readonly (readonly [name: string, found: readonly string[]])[]>;
}

export const ENGINES = [
  {
    name: "cuda",
    collective: "nccl",
    dtypes: ["f32", "bf16", "fp16"],
    // So that near ties choose the latents that they choose elsewhere.
    inferenceDtype: "f32",
    probe: async () => (await import("./cuda/driver/libraries.ts")).cardIsThere(),
    unusable: "there is an NVIDIA card, which cannot be used",
    remark: "",
    prepare: async () => undefined,
    create: async (options) => (await import("./cuda/index.ts")).createCudaEngine(given(options)),
    details: async (created) =>
      created ? [["cuda libraries", await (await import("./cuda/driver/find-libraries.ts")).findLibraries()]] : [],
  },
  {
    name: "cpu",
    collective: "mpi",
    dtypes: ["f32", "bf16"],
    probe: async () => true,
    unusable: "the cpu engine cannot run",
    remark: "",
    prepare: async () => (await import("./cpu/index.ts")).prepareCpuKernels(),
    create: async (options) =>
      (await import("./cpu/index.ts")).createCpuEngine(given(options as CreateOptions & { dtype?: "f32" | "bf16" })),
    details: async () => [["cpu paths", await (await import("./cpu/index.ts")).cpuPaths()]],
  },
  {
    name: "reference",
    collective: "mpi",
    // It always computes in float64.
    dtypes: ["f32", "bf16", "fp16"],
    probe: async () => true,
    unusable: "the reference engine cannot run",
    remark: ", which is some hundred times slower",
    prepare: async () => undefined,
    create: async ({ collective }) => (await import("./reference.ts")).createReferenceEngine(collective),
    details: async () => [],
  },
] as const satisfies readonly EngineEntry[];

/** In alphabetical order. */
export const ENGINE_NAMES = ENGINES.map(({ name }) => name).toSorted((a, b) => (a < b ? -1 : 1));

export type EngineName = "auto" | (typeof ENGINES)[number]["name"];

/**
 * What sums rows of logits fastest, with `threads` threads. Rejects with SaettaError where its
 * kernels cannot be compiled.
 */
export async function openLogSums(threads: number): Promise<LogSums> {
  return (await import("./cpu/index.ts")).openLogSums(threads);
}

/** Options without those that are not given. */
function given<T extends object>(options: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  const entries = Object.entries(options).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [K in keyof T]: Exclude<T[K], undefined> };
}
