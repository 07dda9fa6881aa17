/** What the rest of the program asks of an architecture, by the numbers of an autoencoder. */

import { UsageError } from "../../util/errors.ts";
import type { ParamName } from "../params.ts";
import type { Architecture, Program, SelectionRules } from "./architecture.ts";
import { batchtopk } from "./batchtopk.ts";
import { jumprelu } from "./jumprelu.ts";
import { matryoshka } from "./matryoshka.ts";
import { type ArchitectureName, type ArchitectureSpec, TABLE } from "./table.ts";
import { topk } from "./topk.ts";

export type { ArchitectureName, ArchitectureSpec } from "./table.ts";

export function architectureNames(): [ArchitectureName, ...ArchitectureName[]] {
  return Object.keys(TABLE) as [ArchitectureName, ...ArchitectureName[]];
}

export function architectureNamed<S extends ArchitectureSpec>(name: S["architecture"]): Architecture<S> {
  return TABLE[name] as unknown as Architecture<S>;
}

/** The architecture that `program` calls so in its files. */
export function architectureCalled(program: Program, name: string): ArchitectureName | undefined {
  return architectureNames().find((each) => architectureNamed(each).called[program] === name);
}

/**
 * What `program` calls the architecture in its files. Throws UsageError where it has no word for
 * it.
 */
export function called(spec: ArchitectureSpec, program: Program): string {
  const word = architectureNamed(spec.architecture).called[program];
  if (word !== undefined) return word;
  throw new UsageError(`${program} has no word for the architecture ${spec.architecture}`, {
    mend: "choose another --format",
  });
}

/**
 * The end of a sentence that refuses a file's architecture: what Saetta computes, in the words of
 * the file's program.
 */
export function computedInstead(program: Program): string {
  const words = architectureNames().flatMap((name) => architectureNamed(name).called[program] ?? []);
  return `is not computed by Saetta (it computes ${words.map((word) => JSON.stringify(word)).join(", ")})`;
}

/** The parameters of an autoencoder. */
export function paramsOf(spec: ArchitectureSpec): readonly ParamName[] {
  return architectureNamed(spec.architecture).params(spec);
}

export function rulesOf(spec: ArchitectureSpec): SelectionRules {
  return architectureNamed(spec.architecture).rules(spec);
}

/** Options of all architectures, by the names of the library. */
export const ARCHITECTURE_OPTIONS = {
  ...topk.options,
  ...batchtopk.options,
  ...matryoshka.options,
  ...jumprelu.options,
};

/** What those options are by default; TopK's value where several architectures have one. */
export const ARCHITECTURE_DEFAULTS: Readonly<Record<string, unknown>> = {
  ...jumprelu.defaults,
  ...matryoshka.defaults,
  ...batchtopk.defaults,
  ...topk.defaults,
};

/** k of the rule, where it has one: latents per row, on average. */
export function kOf(spec: ArchitectureSpec): number | undefined {
  return "k" in spec ? spec.k : undefined;
}
