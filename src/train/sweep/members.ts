/** Which autoencoders a sweep has: their names, and which of them can share what is read. */

import { type Config, flagOf, type TrainOptions, type withDefaults } from "../../config.ts";
import { mayDiffer } from "../../sweep-options.ts";
import { UsageError } from "../../util/errors.ts";

/** Characters of a value in a name, and of a name. */
const MOST_OF_VALUE = 24;
const MOST_OF_NAME = 120;

/**
 * The members' names, from the options in which they differ, such as "k32-lr0.001". Throws
 * UsageError where two members are the same, or differ in what is one for all of them.
 */
export function memberNames(members: readonly TrainOptions[]): readonly string[] {
  const names = [...new Set(members.flatMap((options) => Object.keys(options)))] as (keyof TrainOptions)[];
  const textOf = (options: TrainOptions, name: keyof TrainOptions) => JSON.stringify(options[name] ?? null);
  const differing = names.filter((name) => new Set(members.map((options) => textOf(options, name))).size > 1);
  for (const name of differing) {
    if (!mayDiffer(name))
      throw new UsageError(`${flagOf(name)} is one for all autoencoders of a sweep`, { mend: "give one value" });
  }
  const taken = new Map<string, number>();
  const seen = new Set<string>();
  return members.map((options) => {
    const all = differing.map((name) => textOf(options, name)).join();
    if (seen.has(all))
      throw new UsageError("two autoencoders of the sweep have the same options", { mend: "leave one of them out" });
    seen.add(all);
    const parts = differing.filter((name) => options[name] !== undefined).map((name) => part(name, options[name]));
    const plain = parts.join("-").slice(0, MOST_OF_NAME) || "default";
    const times = (taken.get(plain) ?? 0) + 1;
    taken.set(plain, times);
    return times === 1 ? plain : `${plain}+${times}`;
  });
}

/** "k32"; letters and digits that every file system takes. */
function part(name: keyof TrainOptions, value: unknown): string {
  const text = Array.isArray(value) ? value.join("+") : String(value);
  const plain = typeof value === "number" ? text : text.replaceAll(/[^A-Za-z0-9.+]+/g, "_").slice(-MOST_OF_VALUE);
  const words = typeof value === "number" || /^\d/.test(plain) ? plain : `_${plain}`;
  return `${flagOf(name).slice(2).replaceAll("-", "_")}${words}`;
}

/** Options that decide which rows there are. */
type RowsOptions = Pick<
  ReturnType<typeof withDefaults>,
  "excludeTokens" | "excludePositions" | "maxNorm" | "zeroRows" | "holdout" | "seed" | "statisticsRows"
>;

/** The same for members that train and are evaluated on the same rows. */
export function rowsKey(options: RowsOptions): string {
  const { excludeTokens, excludePositions, maxNorm, zeroRows, holdout, seed, statisticsRows } = options;
  return JSON.stringify([excludeTokens, excludePositions, maxNorm, zeroRows, holdout, seed, statisticsRows]);
}

/** The same for members that take the same batches: they train from one read. */
export function batchesKey(config: Config): string {
  const { shuffle, nonFinite, batch, dropLast, tokens, epochs } = config;
  // The last batch may be smaller; what ends on a whole batch may end earlier than others.
  const budget = dropLast ? null : [tokens, epochs];
  return JSON.stringify([rowsKey(config), shuffle, nonFinite, batch, dropLast, budget]);
}

/** Options within which members are compared unless the caller names others. */
export const ALIKE = ["architecture", "k", "latents", "targetL0"] as const satisfies readonly (keyof TrainOptions)[];

/** The same for members that halving compares with each other: `within` these options. */
export function cohortKey(config: Config, steps: number, within: readonly (keyof TrainOptions)[]): string {
  return JSON.stringify([batchesKey(config), steps, ...within.map((name) => config[name as keyof Config] ?? null)]);
}
