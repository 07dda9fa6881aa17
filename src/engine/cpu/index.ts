/**
 * The engine for CPUs: kernels/*.cc, one operation a file, over a stream of native threads; here it
 * is chosen which instructions they use. Results do not depend on the number of threads, nor on
 * whether the encoder's product is screened in bfloat16, bit for bit.
 */

import { availableParallelism, cpus } from "node:os";
import { basename } from "node:path";
import type { Collective } from "../../collective/collective.ts";
import { solo } from "../../collective/solo.ts";
import { messageOf, SaettaError, UsageError } from "../../util/errors.ts";
import { countInWords, eitherOf, mustBe } from "../../util/must.ts";
import type { Engine } from "../engine.ts";
import type { LogSums } from "../log-sums.ts";
import { kernelLibrary } from "./compile.ts";
import { INSTRUCTION_SETS } from "./contract.ts";
import { CpuEngine } from "./cpu-engine.ts";
import { logSumsOf } from "./log-sums.ts";
import { type InstructionSet, loadNative, type Native } from "./native.ts";

export interface CpuOptions {
  /** Default: as many as the machine gives this process. */
  readonly threads?: number;
  /** Instruction set; default: `$SAETTA_CPU`, else the best that the machine has. */
  readonly path?: InstructionSet;
  /**
   * What the encoder's product is computed in; the codes have the same bits. Default: bf16 where
   * the instruction set has it.
   */
  readonly dtype?: "f32" | "bf16";
  /** The ranks that it computes with; default: it is alone. */
  readonly collective?: Collective;
}

export type { InstructionSet } from "./native.ts";

const WHERE = "cpu engine";
const NAMES: Readonly<Record<InstructionSet, string>> = {
  portable: "portable",
  avx2: "AVX2",
  avx512: "AVX-512",
  avx512_bf16: "AVX-512, product in bf16",
  amx: "AVX-512, product in bf16 (AMX)",
};
const MAX_THREADS = 1024;

let library: Promise<Native> | undefined;
/** Which kernels the library has: the hash of their sources, flags and compiler. */
let kernels = "";

/**
 * Compiles the kernels, if that has not been done, and loads them. Throws SaettaError that says how
 * to mend it when they cannot be.
 */
export async function prepareCpuKernels(): Promise<void> {
  await native();
}

/** Why the engine cannot run here, in words; undefined when it can. */
export async function cpuUnavailable(): Promise<string | undefined> {
  try {
    await native();
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

/** Instruction sets that this machine can run, the best last. */
export async function cpuPaths(): Promise<readonly InstructionSet[]> {
  const bits = (await native()).paths();
  return INSTRUCTION_SETS.filter((_, i) => (bits >> i) & 1);
}

export async function createCpuEngine(options: CpuOptions = {}): Promise<Engine> {
  const threads = options.threads ?? availableParallelism();
  if (!Number.isInteger(threads) || threads < 1 || threads > MAX_THREADS) {
    throw new UsageError(mustBe("--threads", countInWords(1, MAX_THREADS), threads));
  }
  const chosen = await chosenPath(options);
  const hasHalf = INSTRUCTION_SETS.indexOf(chosen) > INSTRUCTION_SETS.indexOf("avx512");
  if (options.dtype === "bf16" && !hasHalf) {
    throw new UsageError(`${chosen} has no product in bf16`, {
      where: WHERE,
      mend: "pass --dtype auto: the codes are the same",
    });
  }
  const used = options.dtype === "f32" && hasHalf ? "avx512" : chosen;
  const calls = await native();
  const stream = openStream(calls, used, threads);
  const model = cpus()[0]?.model.trim() || process.arch;
  const description = `cpu: ${model}, ${threads} thread${threads === 1 ? "" : "s"}, ${NAMES[used]}`;
  // Neither threads nor the screen in bf16 change a bit.
  return new CpuEngine(
    calls,
    stream,
    description,
    `${hasHalf ? "avx512" : used} ${kernels}`,
    options.collective ?? solo(),
  );
}

/**
 * The instruction set to use. Throws UsageError where this machine lacks the one that is asked for.
 */
async function chosenPath(options: CpuOptions): Promise<InstructionSet> {
  const possible = await cpuPaths();
  const path = options.path ?? (process.env.SAETTA_CPU || possible[possible.length - 1]);
  const chosen = possible.find((name) => name === path);
  if (chosen === undefined) {
    const known = (INSTRUCTION_SETS as readonly string[]).includes(path);
    throw new UsageError(
      known
        ? `this processor has no ${path}`
        : mustBe(
            options.path === undefined ? "SAETTA_CPU" : "the instruction set",
            eitherOf(INSTRUCTION_SETS),
            path,
            INSTRUCTION_SETS,
          ),
      {
        where: options.path === undefined ? "environment" : WHERE,
        mend: `use ${possible.join(" or ")}`,
      },
    );
  }
  return chosen;
}

function openStream(calls: Native, path: InstructionSet, threads: number): number {
  const stream = calls.open(INSTRUCTION_SETS.indexOf(path), threads);
  if (stream === 0)
    throw new SaettaError(`${threads} threads cannot be started`, { where: WHERE, mend: "use fewer (--threads)" });
  return stream;
}

/**
 * Sums over rows of logits with `threads` threads. Rejects with SaettaError where the kernels
 * cannot be had.
 */
export async function openLogSums(threads: number, options: Pick<CpuOptions, "path"> = {}): Promise<LogSums> {
  const path = await chosenPath(options);
  const calls = await native();
  return logSumsOf(calls, openStream(calls, path, threads));
}

/**
 * The kernels of this process. A failure is not kept: the compiler may have been installed since.
 */
function native(): Promise<Native> {
  library ??= kernelLibrary()
    .then((path) => {
      kernels = basename(path, ".so");
      return loadNative(path);
    })
    .catch((error: unknown) => {
      library = undefined;
      throw error;
    });
  return library;
}
