/** THE TABLE of architectures: a new one is a file next to this and a line here. */

import type { Architecture } from "./architecture.ts";
import { type BatchTopkSpec, batchtopk } from "./batchtopk.ts";
import { type JumpReluSpec, jumprelu } from "./jumprelu.ts";
import { type MatryoshkaSpec, matryoshka } from "./matryoshka.ts";
import { type TopkSpec, topk } from "./topk.ts";

/** The numbers of an autoencoder besides its dimensions; `architecture` says which they are. */
export type ArchitectureSpec = TopkSpec | BatchTopkSpec | MatryoshkaSpec | JumpReluSpec;
export type ArchitectureName = ArchitectureSpec["architecture"];

type Named<N extends ArchitectureName> = Architecture<Extract<ArchitectureSpec, { architecture: N }>>;

export const TABLE: { readonly [N in ArchitectureName]: Named<N> } = { topk, batchtopk, matryoshka, jumprelu };
