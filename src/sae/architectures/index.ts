/** What the rest of the program asks of an architecture, by the numbers of an autoencoder. */

import type { ParamName } from "../params.ts";
import type { Architecture, SelectionRules } from "./architecture.ts";
import { type ArchitectureName, type ArchitectureSpec, TABLE } from "./table.ts";

export type { ArchitectureName, ArchitectureSpec } from "./table.ts";

export function architectureNames(): readonly ArchitectureName[] {
  return Object.keys(TABLE) as ArchitectureName[];
}

export function architectureNamed<S extends ArchitectureSpec>(name: S["architecture"]): Architecture<S> {
  return TABLE[name] as Architecture<S>;
}

/** The parameters of an autoencoder. */
export function paramsOf(spec: ArchitectureSpec): readonly ParamName[] {
  return architectureNamed(spec.architecture).params;
}

export function rulesOf(spec: ArchitectureSpec): SelectionRules {
  return architectureNamed(spec.architecture).rules(spec);
}
