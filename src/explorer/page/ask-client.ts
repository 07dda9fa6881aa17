/** The page's side of /api/ask, and the words of latents from /api/features. */

import type { AskAbout, AskOffer, SteerAnswer, SteerQuestion, TextAnswer, TextQuestion } from "../shared/ask.ts";
import { poster } from "../shared/poster.ts";
import type { LatentRow } from "../shared/source.ts";

/** How often a question is asked again when others wait, and how long it waits before. */
const TRIES = 5;
const WAIT_MS = 1000;

/** What the features of a run say of some latents. */
export interface KnownLatents {
  /** Whether the run has features, so that each latent has a page. */
  readonly hasFeatures: boolean;
  readonly rows: readonly LatentRow[];
}

/** Whether the server has a language model. */
export async function askOffer(): Promise<AskOffer> {
  return (await jsonOf(await fetch("/api/ask"))) as AskOffer;
}

export class AskClient {
  readonly #api: string;
  readonly #features: string;
  readonly #send = poster();

  /** `id`: of a run, as addresses have it. */
  constructor(id: string) {
    this.#api = `/api/ask/${encodeURIComponent(id)}`;
    this.#features = `/api/features/${encodeURIComponent(id)}`;
  }

  async about(): Promise<AskAbout> {
    return (await jsonOf(await fetch(this.#api))) as AskAbout;
  }

  readonly text = async (question: TextQuestion, signal: AbortSignal): Promise<TextAnswer> =>
    (await this.#post("text", question, signal)) as TextAnswer;

  readonly steer = async (question: SteerQuestion, signal: AbortSignal): Promise<SteerAnswer> =>
    (await this.#post("steer", question, signal)) as SteerAnswer;

  async latents(numbers: readonly number[]): Promise<KnownLatents> {
    return (await jsonOf(await fetch(`${this.#features}/some?latents=${numbers.join(",")}`))) as KnownLatents;
  }

  async #post(kind: string, question: unknown, signal: AbortSignal): Promise<unknown> {
    for (let left = TRIES; ; left--) {
      const answer = await this.#send(`${this.#api}/${kind}`, question, signal);
      if (answer.status !== 503 || left === 0) return jsonOf(answer);
      await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
    }
  }
}

/** Throws what the server says is wrong. */
async function jsonOf(answer: Response): Promise<unknown> {
  if (answer.ok) return answer.json();
  throw new Error((await answer.text()).trim() || `The server answered with ${answer.status}.`);
}
