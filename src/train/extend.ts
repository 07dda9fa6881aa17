/**
 * What extending a run means: a larger budget, or files appended to its data (docs/decisions/0063).
 */

import { BUDGET_OPTIONS, budgetRows, flagOf, sensibleWarmup, type TrainOptions, totalSteps } from "../config.ts";
import type { Position } from "../data/batches.ts";
import type { Appended } from "../data/epochs.ts";
import { countRows } from "../data/holdout.ts";
import { openData } from "../data/open.ts";
import type { Source } from "../data/source.ts";
import { targetPaths } from "../transcoder-options.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { counted } from "../util/format.ts";
import type { JsonObject } from "../util/json.ts";
import { formatCount } from "../util/progress.ts";
import { factsOf, type RunPlan } from "./plan.ts";
import type { RunConfig } from "./run-folder.ts";
import { fileNames } from "./run-record.ts";
import { decaySteps, isFalling, learningRate, type Schedule } from "./schedule.ts";

/**
 * The appended files of a run whose checkpoint was saved with data of the facts `then`. Throws
 * SaettaError where the source is neither the same data nor the same data with files after it.
 * `position`: of the checkpoint.
 */
export async function appendedTo(
  source: Source,
  then: JsonObject,
  { data, record, options }: RunConfig,
  position: Position,
): Promise<readonly Appended[]> {
  const now = factsOf(source);
  const { appended } = record;
  if (JSON.stringify(now) === JSON.stringify(then)) return appended;
  const names = ["d_in", "d_out", "dtype", "sequence", "stream"];
  const { rows, grain } = then;
  const alike = names.every((name) => now[name] === then[name]);
  if (!alike || typeof rows !== "number" || typeof grain !== "number" || source.rows <= rows)
    throw otherData(source, now, then);
  if (appended.some((part) => part.rows === rows)) return appended; // no checkpoint was saved since
  const before = source.paths.slice(0, data.length);
  const oldTarget = targetPaths(options) ?? [];
  const target = source.targetPaths?.slice(0, oldTarget.length);
  if (source.paths.length <= data.length || !sameNames(before, data) || !sameNames(target ?? [], oldTarget))
    throw otherData(source, now, then);
  const old = await openData(before, { ...options, target });
  await old.close();
  if (old.rows !== rows) throw otherData(old, factsOf(old), then);
  const epoch = Math.max(position.epoch, appended.at(-1)?.epoch ?? 0) + 1;
  return [...appended, { rows, grain, epoch }];
}

function sameNames(paths: readonly string[], others: readonly string[]): boolean {
  return fileNames(paths).join("/") === fileNames(others).join("/");
}

const FACTS: Readonly<Record<string, string>> = {
  rows: "rows",
  d_in: "numbers per row",
  d_out: "numbers per target",
  dtype: "as its type",
  sequence: "rows per sequence",
  grain: "rows stored together",
};

function otherData({ paths }: Source, now: JsonObject, then: JsonObject): SaettaError {
  const differing = Object.keys(FACTS).filter((name) => now[name] !== then[name]);
  const words = (facts: JsonObject) =>
    differing.map((name) => `${String(facts[name] ?? "no")} ${FACTS[name]}`).join(", ");
  return new SaettaError(`the data is not what the run was trained on: ${words(now)} now, ${words(then)} then`, {
    where: paths.join(", "),
    mend: "name the same files in the same order; more files may follow them",
  });
}

/**
 * The options and the record with which a run is planned that is resumed. `begun`: from a
 * checkpoint; `appended`: with those of `appendedTo`.
 */
export function resumedOptions(
  { options, record }: RunConfig,
  changed: TrainOptions,
  begun: boolean,
  appended: readonly Appended[],
): { readonly options: TrainOptions; readonly record: RunPlan["record"] } {
  const { tokens, epochs, ...rest } = options;
  const kept = tokens === undefined ? { epochs } : { tokens };
  const budget = changed.tokens === undefined && changed.epochs === undefined ? kept : {};
  const extended =
    appended.length > record.appended.length ||
    (changed.tokens ?? changed.epochs ?? tokens ?? epochs) !== (tokens ?? epochs);
  const derived = record.derived.filter((name) => changed[name] === undefined);
  // The warm-up that is done, or under way, is not done again.
  const again = begun ? derived.filter((name) => extended && name !== "warmup") : derived;
  const asked = Object.fromEntries(
    Object.entries({ ...rest, ...budget }).filter(([name]) => !again.some((each) => each === name)),
  );
  return {
    options: { ...asked, ...changed },
    record: begun
      ? { ...record, derived, appended }
      : { steps: undefined, legs: [], appended: [], derived, lanes: record.lanes },
  };
}

/**
 * The plan with a leg where the learning rate had begun to fall at `step`, from which the run is
 * resumed. Says in one line what an extension changes.
 */
export function extend(planned: RunPlan, step: number, before: RunConfig, onNote: (note: string) => void): RunPlan {
  const { config, order, steps, record, choice } = planned;
  const [last, earlier] = [record.appended.at(-1), before.record.appended.length];
  if (last !== undefined && order.rowsIn(last.epoch) < config.batch) {
    throw new UsageError(
      `the appended files have ${order.rowsIn(last.epoch)} rows to train on, fewer than a batch of ${config.batch}`,
      { where: planned.source.paths.slice(before.data.length).join(", "), mend: "append more rows at once" },
    );
  }
  const { lr, warmup, decay } = config;
  const whole =
    before.record.steps ?? totalSteps(budgetRows(before.options, order.rowsPerEpoch), config.batch, config.dropLast);
  // A checkpoint before a leg is used where a newer one is damaged: then another extension replaces
  // the leg.
  const legs = steps === whole ? record.legs : record.legs.filter(({ from }) => from <= step);
  const ended = record.legs[legs.length]?.before ?? whole;
  const old: Schedule = { lr, warmup, decay, steps: ended, legs };
  const rise = record.derived.includes("warmup") ? sensibleWarmup(steps - step) : Math.min(warmup, steps - step);
  const leg = steps > ended && isFalling(old, step) ? [{ from: step, before: ended, rise }] : [];
  const extended = { ...planned, record: { ...record, legs: [...legs, ...leg] } };
  const added = record.appended.length > earlier ? last : undefined;
  if (steps !== ended || added !== undefined) {
    const now: Schedule = { ...old, steps, legs: extended.record.legs };
    const changes = BUDGET_OPTIONS.filter((name) => before.options[name] !== config[name]).map(
      (name) => `${flagOf(name)} ${formatCount(before.options[name] ?? 0)} to ${formatCount(config[name])}`,
    );
    onNote(
      [
        `the run is ${steps < ended ? "shortened" : "extended"} from ${formatCount(ended)} to ${formatCount(steps)} steps`,
        ...(step < steps ? [rateWords(now, step, leg.length > 0)] : []),
        ...(changes.length > 0 ? [`from here ${changes.join(", ")}`] : []),
        ...(added === undefined
          ? []
          : [
              `${formatCount(order.rowsIn(added.epoch))} appended rows are epoch ${added.epoch + 1}, later epochs have all rows; ${formatCount(countRows(choice.holdout))} rows are held out now`,
            ]),
      ].join("; "),
    );
  }
  return extended;
}

function rateWords(schedule: Schedule, step: number, rises: boolean): string {
  const { lr, decay, legs = [] } = schedule;
  const figure = (rate: number) => rate.toExponential(1);
  const falls = decay > 0 ? ` and falls over the last ${counted(decaySteps(schedule), "step")}` : "";
  if (!rises) return `the learning rate continues from ${figure(learningRate(schedule, step))}${falls}`;
  const rise = counted(legs.at(-1)!.rise, "step");
  return `the learning rate rises from ${figure(learningRate(schedule, step - 1))} to ${figure(lr)} over ${rise}${falls}`;
}
