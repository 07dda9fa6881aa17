/**
 * A rank's door to the others, apart from what its engine computes: values exchanged, waiting for
 * all, giving up. The work is in a thread of its own (watcher.ts).
 */

import { Worker } from "node:worker_threads";
import { SaettaError } from "../util/errors.ts";
import type { FromWatcher, ToWatcher, WatcherOptions } from "./watcher.ts";

/** A process that gives up waits so long for the thread that ends it. */
const LAST_WORDS = 5000;

export class Rendezvous {
  /** Where the hub listens, when it is here. */
  readonly port: number;
  readonly #worker: Worker;
  readonly #waiting = new Map<string, (values: readonly unknown[]) => void>();
  /** Exchanges so far of each channel. */
  readonly #exchanges = new Map<string, number>();
  #joined: (() => void) | undefined;
  #left: (() => void) | undefined;
  #failed: ((error: Error) => void) | undefined;

  private constructor(worker: Worker, port: number) {
    this.#worker = worker;
    this.port = port;
    worker.on("message", (message: FromWatcher) => this.#hear(message));
  }

  /**
   * Starts the thread, and the hub where `listen` says so. Rejects with SaettaError when the port
   * is taken.
   */
  static async open(options: WatcherOptions): Promise<Rendezvous> {
    const worker = new Worker(new URL("./watcher.js", import.meta.url), { workerData: options });
    if (options.listen === undefined) return new Rendezvous(worker, 0);
    const port = await new Promise<number>((resolve, reject) => {
      worker.once("error", reject);
      worker.once("message", (message: FromWatcher) => {
        if ("listening" in message) resolve(message.listening);
        else reject(new SaettaError("failed" in message ? message.failed : "rank 0 does not listen"));
      });
    }).catch(async (error: unknown) => {
      await worker.terminate();
      throw error;
    });
    return new Rendezvous(worker, port);
  }

  /** Resolves when this rank is in. Rejects with SaettaError when the hub cannot be reached. */
  connect(hosts: readonly string[], port: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#joined = resolve;
      this.#failed = reject;
      this.#post({ connect: { hosts, port } });
    });
  }

  /** Every rank's value, in the order of the ranks. */
  exchange<T>(value: T, channel = ""): Promise<readonly T[]> {
    const number = this.#exchanges.get(channel) ?? 0;
    this.#exchanges.set(channel, number + 1);
    const exchange = `${channel} ${number}`;
    return new Promise((resolve) => {
      this.#waiting.set(exchange, (values) => resolve(values as readonly T[]));
      this.#post({ exchange, value });
    });
  }

  /**
   * Ends the run of all ranks, and this process with `code`. `told`: the user has seen why.
   * Resolves only where the thread fails to.
   */
  async fail(text: string, told: boolean, code: number): Promise<void> {
    this.#post({ fail: text, told, code });
    await new Promise((resolve) => {
      setTimeout(resolve, LAST_WORDS);
    });
    await this.#worker.terminate();
  }

  /** Leaves in good order, once every rank is about to. */
  async leave(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#left = resolve;
      this.#post({ leave: true });
    });
    await this.#worker.terminate();
  }

  #post(message: ToWatcher): void {
    this.#worker.postMessage(message);
  }

  #hear(message: FromWatcher): void {
    if ("joined" in message) this.#joined?.();
    else if ("left" in message) this.#left?.();
    else if ("failed" in message) this.#failed?.(new SaettaError(message.failed));
    else if ("exchange" in message) {
      this.#waiting.get(message.exchange)?.(message.values);
      this.#waiting.delete(message.exchange);
    }
  }
}
