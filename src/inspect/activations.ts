/** What `saetta inspect` says of activations: the preflight of what `saetta train` would read. */

import { type OpenOptions, openSource } from "../data/open.ts";
import { preflightOf } from "../data/preflight.ts";
import { advice } from "../data/preflight-words.ts";
import { messageOf, SaettaError } from "../util/errors.ts";
import { snakeCase } from "../util/json.ts";
import type { Facts, Inspection } from "./inspection.ts";

interface ActivationFacts {
  readonly activations?: Facts;
  readonly advice?: readonly string[];
}

/**
 * The activations of a file. Where it has none that can be trained on, the reason is the advice,
 * or, with `others`, nothing is said; where `options.dataset` names them it is thrown.
 */
export async function activationsIn(path: string, options: OpenOptions, others: boolean): Promise<ActivationFacts> {
  try {
    const { files: _, ...found } = await look(path, options);
    return found;
  } catch (thrown) {
    if (options.dataset !== undefined || !(thrown instanceof SaettaError)) throw thrown;
    return others ? {} : { advice: [`cannot be trained on: ${messageOf(thrown)}`] };
  }
}

/** The activations of a folder's files, or those that a pattern names, together. */
export async function activationShards(path: string, options: OpenOptions): Promise<Omit<Inspection, "path">> {
  const { files, activations, advice: said } = await look(path, options);
  return {
    kind: `activations in ${files.length} ${files.length === 1 ? "file" : "files"}`,
    facts: { files, activations },
    advice: said,
  };
}

async function look(
  path: string,
  options: OpenOptions,
): Promise<Required<ActivationFacts> & { readonly files: readonly string[] }> {
  const source = await openSource([path], options);
  try {
    const found = await preflightOf(source);
    const { rows, sampled, nonFinite, zeroRows, norms, meanToSpread, duplicates, outliers, startTokens } = found;
    const { large, sinks, scales } = found;
    const activations = {
      rows: source.rows,
      width: source.dIn,
      dtype: source.dtype,
      sequence: source.sequence,
      sampledRows: sampled,
      nonFiniteRows: nonFinite,
      zeroRows,
      ...(rows === 0 ? {} : { meanToSpread, duplicateShare: duplicates, norms, outlierDimensions: outliers }),
      ...(large.rows > 0 && { largeRows: large }),
      ...(sinks.length > 0 && { sinkPositions: sinks }),
      ...(scales && { elementScales: scales.times }),
      ...(startTokens === undefined
        ? {}
        : { startTokens: { rows: startTokens.rows, ...(startTokens.rows > 0 && { norms: startTokens.norms }) } }),
    };
    return {
      files: source.paths,
      activations: snakeCase(rounded(activations)) as Facts,
      advice: [...(source.notes ?? []), ...advice(found)],
    };
  } finally {
    await source.close();
  }
}

/** Six digits are more than a sample can tell. */
function rounded(value: unknown): unknown {
  if (typeof value === "number") return Number.isInteger(value) ? value : Number(value.toPrecision(6));
  if (Array.isArray(value)) return value.map(rounded);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, rounded(inner)]));
}
