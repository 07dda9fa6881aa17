/** What selects the latents of an autoencoder in use, as far as the files of others say it. */

import { type ArchitectureSpec, rulesOf } from "../sae/architectures/index.ts";
import type { SaeDescription } from "../sae/description.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import type { Exchanged, Floats, FormatName, Told } from "./format.ts";

/** TopK with this k. */
export function topkOf(k: number): ArchitectureSpec {
  return { architecture: "topk", k, auxk: 0 };
}

/** A threshold per latent; how it was trained is not known. */
export const THRESHOLDS: ArchitectureSpec = { architecture: "jumprelu", targetL0: 0 };

export const RELU_NOTE = "the activation is ReLU: a threshold of 0 for every latent";

/** k of the k highest of a row; undefined where a threshold decides. */
export function topkIn({ spec }: Pick<SaeDescription, "spec">): number | undefined {
  const { inference } = rulesOf(spec);
  return inference.kind === "topk" ? inference.k : undefined;
}

/** The same for a format, `program`, that has nothing else. Throws UsageError for thresholds. */
export function onlyTopk(description: SaeDescription, program: FormatName): number {
  const k = topkIn(description);
  if (k !== undefined) return k;
  throw new UsageError(
    `in ${description.spec.architecture} a threshold decides which latents are active, which ${program} has no word for`,
    { mend: "use --format saelens or dictionary_learning" },
  );
}

/** The thresholds [n] of an autoencoder in which thresholds decide. */
export async function thresholdsIn({ description, read }: Exchanged): Promise<Floats> {
  const { inference } = rulesOf(description.spec);
  if (inference.kind !== "threshold") throw new TypeError(`${inference.kind} has no thresholds`);
  const values = await read(inference.param);
  if (inference.param === "threshold") return values;
  return isSet(values) ? filled(values, description.dims.n) : refuseUnset();
}

function filled(values: Floats, n: number): Floats {
  return values instanceof Float32Array ? new Float32Array(n).fill(values[0]!) : new Float64Array(n).fill(values[0]!);
}

/** Whether the threshold of BatchTopK [1] was ever set; training sets it to values above 0. */
export function isSet(cut: Floats): boolean {
  return cut[0]! > 0;
}

/** Throws SaettaError for a threshold of BatchTopK that was never set; `where` names its file. */
export function refuseUnset(
  where?: string,
  subject = "its threshold",
  mend = "train it past --threshold-start",
): never {
  throw new SaettaError(`${subject} was never set, so it does not say which latents are active`, {
    ...(where === undefined ? {} : { where }),
    mend,
  });
}

/** Throws UsageError where the user gives a k for a file in which thresholds decide. */
export function noK({ k }: Told, where: string): void {
  if (k === undefined) return;
  throw new UsageError(`a threshold decides which latents are active, so there is no k to set to ${k}`, {
    where,
    mend: "leave out --k",
  });
}

/**
 * What a file of `title` does not carry: it says how latents are selected, and nothing of training.
 */
export function lostWith({ spec }: SaeDescription, title: string): string[] {
  const lost = [
    ...("k" in spec && topkIn({ spec }) === undefined ? [`k (${spec.k} per row)`] : []),
    ...("prefixes" in spec ? [`the prefixes (${spec.prefixes.join(", ")})`] : []),
    ...("targetL0" in spec && spec.targetL0 > 0 ? [`the target L0 (${spec.targetL0})`] : []),
  ];
  return lost.length === 0 ? [] : [`${title} has no place for what training used: ${lost.join(" and ")}`];
}
