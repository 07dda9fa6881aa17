/** The architectures that Saetta knows. A new one is a file next to this and a line here. */

import type { ParamName } from "../params.ts";
import type { Architecture, SelectionRules } from "./architecture.ts";
import { type TopkSpec, topk } from "./topk.ts";

/** The numbers of an autoencoder besides its dimensions; `architecture` says which they are. */
export type ArchitectureSpec = TopkSpec;

type Named<N extends ArchitectureSpec["architecture"]> = Architecture<Extract<ArchitectureSpec, { architecture: N }>>;
const ALL: { readonly [N in ArchitectureSpec["architecture"]]: Named<N> } = { topk };

export const ARCHITECTURES = Object.keys(ALL) as readonly ArchitectureSpec["architecture"][];

export function architectureNamed<S extends ArchitectureSpec>(name: S["architecture"]): Architecture<S> {
  return ALL[name] as Architecture<S>;
}

/** The parameters of an autoencoder. */
export function paramsOf(spec: ArchitectureSpec): readonly ParamName[] {
  return architectureNamed(spec.architecture).params;
}

export function rulesOf(spec: ArchitectureSpec): SelectionRules {
  return architectureNamed(spec.architecture).rules(spec);
}
