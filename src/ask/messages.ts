/** What the server and the process that runs the model tell each other. */

import type { SteerQuestion, TextQuestion } from "../explorer/shared/ask.ts";
import type { AskModelOptions } from "./subject.ts";

export type AskKind = "about" | "text" | "steer";

export type Question =
  | { readonly kind: "about" }
  | { readonly kind: "text"; readonly question: TextQuestion }
  | { readonly kind: "steer"; readonly question: SteerQuestion };

/** To the process. Its options come first. */
export type ToModel =
  | { readonly options: AskModelOptions }
  /** `path`: of the autoencoder. */
  | { readonly id: number; readonly path: string; readonly asked: Question };

/**
 * From the process. `opened`: it is ready, or the autoencoder of a question is open and the answer
 * is being computed. `usage`: the question makes no sense.
 */
export type FromModel =
  | { readonly id: number; readonly opened: true }
  | { readonly id: number; readonly answer: unknown; readonly memory: number }
  | { readonly id: number; readonly refused: string; readonly usage: boolean };

/** The id of what is said before any question. */
export const START_ID = 0;
