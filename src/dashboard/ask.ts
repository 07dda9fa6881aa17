/** Questions about texts, at /api/ask/ID: what is asked of whom, and what becomes of the answer. */

import type { ServerResponse } from "node:http";
import { fail, sendJson } from "./respond.ts";

const KINDS = ["text", "steer"] as const;

/**
 * What answers. `path`: of a run folder or an autoencoder; `signal`: nobody waits any more.
 * Resolves to an answer, or to the status and the line of text that say why there is none.
 */
export interface AskApi {
  /** Path of the language model. */
  readonly model: string;
  ask(
    path: string,
    kind: "about" | (typeof KINDS)[number],
    question: unknown,
    signal?: AbortSignal,
  ): Promise<{ readonly answer: unknown } | { readonly status: number; readonly text: string }>;
}

const NO_MODEL = "this server has no language model: start it with saetta serve RUN --model MODEL";

/** What there is to ask about. */
export async function answerAbout(api: AskApi | undefined, path: string, response: ServerResponse): Promise<void> {
  if (api === undefined) fail(response, 404, NO_MODEL);
  else await pass(api, path, "about", undefined, response);
}

/** `parts`: of the address after the run. */
export async function answerQuestion(
  api: AskApi | undefined,
  path: string,
  parts: readonly string[],
  question: unknown,
  response: ServerResponse,
): Promise<void> {
  const kind = KINDS.find((each) => parts.length === 1 && parts[0] === each);
  if (api === undefined || kind === undefined) fail(response, 404, kind ? NO_MODEL : "there is nothing here");
  else await pass(api, path, kind, question, response);
}

async function pass(
  api: AskApi,
  path: string,
  kind: Parameters<AskApi["ask"]>[1],
  question: unknown,
  response: ServerResponse,
): Promise<void> {
  const gone = new AbortController();
  response.on("close", () => gone.abort());
  const outcome = await api.ask(path, kind, question, gone.signal);
  if ("answer" in outcome) {
    sendJson(response, outcome.answer);
    return;
  }
  if (outcome.status === 503) response.setHeader("Retry-After", "2");
  fail(response, outcome.status, outcome.text);
}
