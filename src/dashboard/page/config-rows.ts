/** Options of runs beside each other. */

import type { RunDetails } from "../api.ts";

export interface ConfigRow {
  readonly name: string;
  /** One a run, in their order; null: the run has no such option. */
  readonly values: readonly (string | null)[];
  readonly differs: boolean;
}

/**
 * All options of the runs, those in which they differ first, each in the order of the first run
 * that has it.
 */
export function configRows(details: readonly RunDetails[]): readonly ConfigRow[] {
  const configs = details.map(({ config }) => new Map(config));
  const names = [...new Set(details.flatMap(({ config }) => config.map(([name]) => name)))];
  const rows = names.map((name): ConfigRow => {
    const values = configs.map((config) => config.get(name) ?? null);
    return { name, values, differs: new Set(values).size > 1 };
  });
  return [...rows.filter(({ differs }) => differs), ...rows.filter(({ differs }) => !differs)];
}

/** A value as the config file has it: words without their quotes, lists without brackets. */
export function shownValue(json: string | null): string {
  if (json === null) return "–";
  try {
    const value: unknown = JSON.parse(json);
    const list = Array.isArray(value) ? value : [value];
    return list.map((each) => (typeof each === "string" ? each : JSON.stringify(each))).join(", ");
  } catch {
    return json; // it was cut
  }
}
