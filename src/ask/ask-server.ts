/**
 * The server's side of the process that runs the model: a queue with an end, a time for each
 * answer, and a bound on memory. A process that goes beyond one of them is ended, and the next
 * question starts another.
 */

import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { SaettaError, UsageError } from "../util/errors.ts";
import { type AskKind, type FromModel, type Question, START_ID, type ToModel } from "./messages.ts";
import { steerQuestion, textQuestion } from "./question.ts";
import type { AskModelOptions } from "./subject.ts";

/** An answer, or the status and the line of text that say why there is none. */
export type AskOutcome = { readonly answer: unknown } | { readonly status: number; readonly text: string };

export interface AskBounds {
  /** Questions that wait. */
  readonly waiting: number;
  /** Milliseconds to open a model or an autoencoder, and for an answer after that. */
  readonly openMs: number;
  readonly answerMs: number;
  /** Bytes that the process may have beyond those after its first answer. */
  readonly growth: number;
}

const BOUNDS: AskBounds = { waiting: 16, openMs: 600_000, answerMs: 30_000, growth: 2 * 2 ** 30 };

/** As built: a process is started from JavaScript. */
const MODEL_PROCESS = fileURLToPath(new URL("../../dist/ask/model-process.js", import.meta.url));

interface Waiting {
  readonly path: string;
  readonly asked: Question;
  readonly settle: (outcome: AskOutcome) => void;
}

interface Running {
  readonly id: number;
  readonly settle: (outcome: AskOutcome) => void;
}

export class AskServer implements AsyncDisposable {
  readonly #options: AskModelOptions;
  readonly #bounds: AskBounds;
  readonly #queue: Waiting[] = [];
  #child: ChildProcess | undefined;
  #running: Running | undefined;
  #timer: NodeJS.Timeout | undefined;
  #lastId = START_ID;
  /** Memory of the process after its first answer. */
  #base: number | undefined;
  #isClosed = false;

  private constructor(options: AskModelOptions, bounds: AskBounds) {
    this.#options = options;
    this.#bounds = bounds;
  }

  /** Starts the process. Rejects with SaettaError where the model cannot be opened. */
  static async start(options: AskModelOptions, bounds: Partial<AskBounds> = {}): Promise<AskServer> {
    const server = new AskServer(options, { ...BOUNDS, ...bounds });
    const outcome = await new Promise<AskOutcome>((settle) => server.#start(settle));
    if ("answer" in outcome) return server;
    await server[Symbol.asyncDispose]();
    throw outcome.status === 400 ? new UsageError(outcome.text) : new SaettaError(outcome.text);
  }

  /** Path of the language model, as it was named. */
  get model(): string {
    return this.#options.model;
  }

  /** The id of the process, for tests. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /**
   * Asks about the autoencoder at `path`. A question that makes no sense is refused before it
   * waits; `signal` takes one that waits out of the queue. Never rejects.
   */
  ask(path: string, kind: AskKind, question: unknown, signal?: AbortSignal): Promise<AskOutcome> {
    return new Promise((settle) => {
      const asked = checked(kind, question);
      if ("status" in asked) return settle(asked);
      if (this.#queue.length >= this.#bounds.waiting)
        return settle({ status: 503, text: `${this.#bounds.waiting} questions wait already: ask again` });
      const waiting: Waiting = { path, asked, settle };
      this.#queue.push(waiting);
      signal?.addEventListener("abort", () => {
        const at = this.#queue.indexOf(waiting);
        if (at < 0) return;
        this.#queue.splice(at, 1);
        settle({ status: 499, text: "nobody waits for the answer" });
      });
      this.#next();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    const child = this.#child;
    this.#end("the server is closing");
    for (const { settle } of this.#queue.splice(0)) settle({ status: 503, text: "the server is closing" });
    if (child !== undefined && child.exitCode === null && child.signalCode === null)
      await new Promise((resolve) => child.once("exit", resolve));
  }

  #next(): void {
    if (this.#running !== undefined || this.#isClosed || this.#queue.length === 0) return;
    if (this.#child === undefined) {
      this.#start((outcome) => {
        if ("status" in outcome) for (const { settle } of this.#queue.splice(0)) settle(outcome);
      });
      return;
    }
    const { path, asked, settle } = this.#queue.shift()!;
    this.#running = { id: ++this.#lastId, settle };
    this.#wait(this.#bounds.openMs);
    this.#send({ id: this.#lastId, path, asked });
  }

  #start(settle: Running["settle"]): void {
    // Code that other programs pass to Node, such as a test runner's, is not for the process.
    const child = fork(MODEL_PROCESS, [], { execArgv: ["--max-old-space-size=2048"], serialization: "advanced" });
    this.#child = child;
    this.#base = undefined;
    child.on("message", (message: FromModel) => this.#hear(child, message));
    child.on("error", () => this.#lost(child));
    child.on("exit", () => this.#lost(child));
    this.#running = { id: START_ID, settle };
    this.#wait(this.#bounds.openMs);
    this.#send({ options: this.#options });
  }

  #send(message: ToModel): void {
    const child = this.#child;
    child?.send(message, (failed) => failed && this.#lost(child));
  }

  #hear(child: ChildProcess, message: FromModel): void {
    if (child !== this.#child || message.id !== this.#running?.id) return;
    if ("opened" in message) {
      if (message.id === START_ID) this.#settle({ answer: undefined });
      else this.#wait(this.#bounds.answerMs);
      return;
    }
    if ("refused" in message) {
      if (message.id === START_ID) this.#drop();
      this.#settle({ status: message.usage ? 400 : 500, text: message.refused });
      return;
    }
    this.#base ??= message.memory;
    if (message.memory > this.#base + this.#bounds.growth) this.#drop();
    this.#settle({ answer: message.answer });
  }

  #wait(milliseconds: number): void {
    clearTimeout(this.#timer);
    const what = `took longer than ${Math.round(milliseconds / 1000)} s and was given up`;
    this.#timer = setTimeout(() => this.#end(what), milliseconds);
  }

  /** The process ended by itself, or never began. */
  #lost(child: ChildProcess): void {
    if (child === this.#child) this.#end("the model's process ended: ask again, with a shorter text");
  }

  #end(text: string): void {
    this.#drop();
    this.#settle({ status: 503, text });
  }

  #drop(): void {
    const child = this.#child;
    this.#child = undefined;
    child?.kill("SIGKILL");
  }

  #settle(outcome: AskOutcome): void {
    clearTimeout(this.#timer);
    const running = this.#running;
    this.#running = undefined;
    running?.settle(outcome);
    this.#next();
  }
}

/** The question, or why it makes no sense. */
function checked(kind: AskKind, question: unknown): Question | Extract<AskOutcome, { readonly status: number }> {
  try {
    if (kind === "about") return { kind };
    return kind === "text" ? { kind, question: textQuestion(question) } : { kind, question: steerQuestion(question) };
  } catch (thrown) {
    if (thrown instanceof UsageError) return { status: 400, text: thrown.message };
    throw thrown;
  }
}
