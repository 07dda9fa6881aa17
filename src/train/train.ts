/** Starting a run. */

import { basename, join } from "node:path";
import type { RunLock } from "../checkpoint/lock.ts";
import type { Collective } from "../collective/collective.ts";
import { chooseGrid } from "../collective/launch-env.ts";
import { solo } from "../collective/solo.ts";
import { checkOptions, type TrainOptions } from "../config.ts";
import { stoppable } from "../data/rows-source.ts";
import type { Source } from "../data/source.ts";
import { type FoundSae, findSae } from "../inference/weights.ts";
import type { ArchitectureOptions } from "../sae/architectures/architecture.ts";
import { architectureNamed, kOf } from "../sae/architectures/index.ts";
import { normalizationOf } from "../sae/description.ts";
import { otherOrigin } from "../sae/origin.ts";
import { UsageError } from "../util/errors.ts";
import { smallDefaults } from "./advice.ts";
import { planRun, type RunPlan } from "./plan.ts";
import { fromFirst } from "./rank-shard.ts";
import type { TrainRun } from "./run.ts";
import { claimFolder, createRunFolder, discardRunFolder } from "./run-folder.ts";
import { launch, roomToSave } from "./session.ts";
import { startState } from "./start-state.ts";

export interface RunOptions {
  /** Stops the run, with a checkpoint. */
  readonly signal?: AbortSignal | undefined;
  /** Gets notes: what is worth knowing and no error, a sentence each. */
  readonly onNote?: ((note: string) => void) | undefined;
  /** @internal The ranks that train together, each with this call; the caller closes it. */
  readonly collective?: Collective | undefined;
}

export interface TrainArguments extends RunOptions {
  /** The run folder; default `runs/<data>-<UTC time>`; false writes nothing. */
  readonly out?: string | false | undefined;
}

/**
 * Trains an autoencoder on the rows of `source` (TopK with an auxiliary loss over dead latents: Gao
 * et al. 2024, "Scaling and evaluating sparse autoencoders"). The options are those of `saetta
 * train`, in camelCase. Resolves when the run is under way. Rejects when it cannot be: UsageError
 * for options that make no sense, SaettaError for what the world does not have (rows, memory, a
 * folder to write into). The caller closes the source once `finished` is settled.
 */
export async function train(given: Source, options: TrainOptions & TrainArguments = {}): Promise<TrainRun> {
  const { out, signal, onNote = () => undefined, collective = solo(), ...rest } = options;
  const source = stoppable(given, signal);
  const asked = checkOptions(rest, undefined, (name) => name);
  if (asked.target !== undefined && source.dOut === undefined)
    throw new UsageError("target: the source has no targets", { mend: "give openActivations the target, too" });
  chooseGrid(0, collective.grid.size, asked);
  const initial = asked.init === undefined ? undefined : await findSae(asked.init, undefined, { otherwiseK: asked.k });
  const context = { signal, onNote };
  const wanted = initial === undefined ? asked : likeInitial(asked, initial, source);
  const plan = await planRun(source, wanted, collective, context);
  let dir: string | undefined;
  let lock: RunLock | undefined;
  try {
    for (const note of startNotes(asked, initial, plan)) onNote(note);
    if (out !== false)
      dir = await fromFirst(collective, async () => out ?? (await claimFolder(defaultOut(source, new Date()))));
    if (dir !== undefined && collective.grid.rank === 0) lock = await createRunFolder(dir, plan.config, plan.record);
    if (lock?.warning !== undefined) onNote(lock.warning);
    const start = await startState(plan, initial, context);
    if (dir !== undefined && lock !== undefined) await roomToSave(dir, plan, start, context);
    return launch(plan, start, dir, lock, context);
  } catch (error) {
    await plan.engine.close();
    if (dir !== undefined && lock !== undefined) await discardRunFolder(dir, lock);
    throw error;
  }
}

/**
 * What is worth knowing before training: another origin than that of the autoencoder to start from,
 * small defaults.
 */
export function startNotes(
  asked: TrainOptions,
  initial: FoundSae | undefined,
  { source, config, budget }: RunPlan,
): readonly string[] {
  if (initial === undefined) return smallDefaults(asked, config, budget, source.dIn);
  const { description } = initial;
  const other = otherOrigin(source.paths.join(", "), source.origin, asked.init ?? "", description.saetta);
  return other === undefined ? [] : [other];
}

/**
 * Width, k and normalisation come from the autoencoder that the run starts from, where they are not
 * asked for.
 */
export function likeInitial(asked: TrainOptions, initial: FoundSae, source: Source): TrainOptions {
  const { dims, spec } = initial.description;
  const { dIn: d, n, dOut } = dims;
  const where = asked.init ?? "";
  if (d !== source.dIn)
    throw new UsageError(`reads rows of width ${d}, but the data has width ${source.dIn}`, {
      where,
      mend: "choose another --init",
    });
  if (source.dOut !== undefined && dOut !== source.dOut)
    throw new UsageError(`writes rows of width ${dOut}, but the targets have width ${source.dOut}`, {
      where,
      mend: "choose another --init",
    });
  const untied = dims.untied === true;
  if (untied !== (source.dOut !== undefined)) {
    throw new UsageError(
      untied ? "is a transcoder, and the data has no targets" : "is an autoencoder, which has no targets",
      {
        where,
        mend: untied ? "name them with --target" : "leave out --target, or choose another --init",
      },
    );
  }
  const latents = asked.latents ?? (asked.expansion === undefined ? n : Math.round(asked.expansion * d));
  if (latents !== n)
    throw new UsageError(`has ${n} latents, but ${latents} were asked for`, {
      where,
      mend: "leave out --latents and --expansion",
    });
  const { kind } = normalizationOf(initial.description);
  if (asked.normalize !== undefined && asked.normalize !== kind) {
    throw new UsageError(`was trained with --normalize ${kind}, not ${asked.normalize}`, {
      where,
      mend: "leave out --normalize",
    });
  }
  const { expansion: _, ...rest } = asked;
  // The weights already have their scale; rescaling them would not be starting from them.
  if (asked.encoderRescale)
    throw new UsageError("--encoder-rescale and --init exclude each other", { mend: "leave one of them out" });
  const architecture = asked.architecture ?? spec.architecture;
  const k = asked.k ?? kOf(spec);
  const hasK = Object.hasOwn(architectureNamed(architecture).options, "k") && k !== undefined;
  // What belongs together is the user's, or the autoencoder's.
  const own = architecture === spec.architecture ? (architectureNamed(spec.architecture).like?.(spec) ?? {}) : {};
  const isAsked = Object.keys(own).some((name) => (asked as ArchitectureOptions)[name] !== undefined);
  const skip = asked.skip ?? initial.description.skip ?? false;
  if (!skip && initial.description.skip === true)
    throw new UsageError("has a skip connection, which --skip trains", { where, mend: "leave out --no-skip" });
  const like = { ...(isAsked ? {} : own), ...(skip ? { skip } : {}), ...(hasK ? { k } : {}) };
  return { ...rest, ...like, architecture, latents: n, normalize: kind, encoderRescale: false };
}

/** Where a run of the source is written that nobody gave a folder. */
export function defaultOut({ paths }: Source, now: Date): string {
  const name = basename(paths[0] ?? "run").replace(/\.[^.]+$/, "");
  return join("runs", `${name}-${now.toISOString().replaceAll(/[-:]|\.\d+/g, "")}`);
}
