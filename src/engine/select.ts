/**
 * Which engine to use, by its name or by what the machine has. Engines are loaded when they are
 * asked for.
 */

import type { Collective } from "../collective/collective.ts";
import { messageOf, SaettaError, UsageError } from "../util/errors.ts";
import type { Engine } from "./engine.ts";
import { type CreateOptions, type Dtype, ENGINES, type EngineEntry, type EngineName } from "./registry.ts";

export type { Dtype, EngineName } from "./registry.ts";

export interface SelectOptions extends Omit<CreateOptions, "dtype"> {
  /**
   * On the cpu only the encoder's product can be in bf16, and the codes have the same bits. Default
   * "auto". The reference engine: always float64.
   */
  readonly dtype?: Dtype | undefined;
  /**
   * For inference: "auto" is f32 on a card, too, so that near ties choose the latents that they
   * choose elsewhere.
   */
  readonly inference?: boolean | undefined;
  /** Told when "auto" falls back, and why. */
  readonly onNote?: ((note: string) => void) | undefined;
}

const ALL: readonly EngineEntry[] = ENGINES;

/**
 * Starts an engine. "auto" is the fastest that can run here. Rejects with SaettaError when the
 * named one cannot; with UsageError, also for "auto", when options or SAETTA_CPU ask for what the
 * processor does not have.
 */
export async function selectEngine(name: EngineName, options: SelectOptions = {}): Promise<Engine> {
  if (name !== "auto") return create(entryOf(name), options);
  // Ranks that are joined already have agreed on the kind of engine.
  if (options.collective?.kind === "mpi") return create(joinedBy("mpi"), options);
  for (const [i, entry] of ALL.entries()) {
    if (!(await entry.probe())) continue;
    const next = ALL[i + 1];
    try {
      return await create(entry, options);
    } catch (error) {
      // What was asked for and cannot be is no reason to do something else.
      if (next === undefined || !(error instanceof SaettaError) || error instanceof UsageError) throw error;
      options.onNote?.(`${entry.unusable} (${messageOf(error)}); the ${next.name} engine is used${next.remark}`);
    }
  }
  throw new SaettaError("no engine can run here", { mend: "use --engine reference" });
}

/** What joins ranks that compute on this engine. */
export async function collectiveKind(name: EngineName): Promise<EngineEntry["collective"]> {
  if (name !== "auto") return entryOf(name).collective;
  for (const entry of ALL) if (await entry.probe()) return entry.collective;
  return "mpi";
}

/**
 * Compiles what the engine needs, if that has not been done: of several ranks of a host, one does
 * it before the others start theirs.
 */
export async function prepareEngine(name: EngineName, kind: Collective["kind"]): Promise<void> {
  if (kind === "solo") return;
  await (name === "auto" ? joinedBy(kind) : entryOf(name)).prepare();
}

function entryOf(name: string): EngineEntry {
  const entry = ALL.find((each) => each.name === name);
  if (entry === undefined) throw new UsageError(`there is no engine ${name}`);
  return entry;
}

function joinedBy(kind: EngineEntry["collective"]): EngineEntry {
  return ALL.find((each) => each.collective === kind)!;
}

function create(entry: EngineEntry, options: SelectOptions): Promise<Engine> {
  const { threads, dtype = "auto", inference = false, collective } = options;
  if (dtype !== "auto" && !entry.dtypes.includes(dtype)) {
    const other = ALL.find(({ dtypes }) => dtypes.includes(dtype));
    throw new UsageError(`the ${entry.name} engine does not compute in ${dtype}`, {
      mend: `use --dtype ${entry.dtypes.join(" or ")}${other === undefined ? "" : `, or --engine ${other.name}`}`,
    });
  }
  const unasked = inference ? entry.inferenceDtype : undefined;
  return entry.create({ threads, dtype: dtype === "auto" ? unasked : dtype, collective });
}
