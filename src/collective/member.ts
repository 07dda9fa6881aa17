/** A rank's connection to the hub. */

import { connect, type Socket } from "node:net";
import { hostname } from "node:os";
import { messageOf } from "../util/errors.ts";
import { beatOf, overslept, SILENCE } from "./hub.ts";
import { readLines, writeLine } from "./lines.ts";

export interface MemberOptions {
  readonly rank: number;
  /** Tried in this order. */
  readonly hosts: readonly string[];
  readonly port: number;
  /** Who the hub is, for people: "rank 0". */
  readonly hub: string;
  readonly token: string;
  readonly deadline: number;
  readonly patience: number;
  /** The run is over. `told`: somebody on this host shows the reason to the user. */
  readonly onEnd: (text: string, told: boolean) => void;
}

const RETRY = 200;

export class Member {
  readonly #options: MemberOptions;
  readonly #socket: Socket;
  readonly #waiting = new Map<string, (values: readonly unknown[]) => void>();
  #hubHost = "";
  #seen = performance.now();
  #last = performance.now();
  #leaving = false;
  #beat: NodeJS.Timeout;

  private constructor(socket: Socket, options: MemberOptions) {
    const { rank, token, deadline } = options;
    this.#options = options;
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on("error", () => undefined); // followed by close
    readLines(socket, (message) => this.#hear(message));
    socket.on("close", () =>
      this.#gone(`${this.#hub} ended without a word: it was killed (out of memory?), or it crashed`),
    );
    writeLine(socket, { hello: rank, host: hostname(), pid: process.pid, token });
    this.#beat = setInterval(() => this.#look(), beatOf(deadline));
  }

  /**
   * Connects, again and again until the hub is there. Rejects with words after `patience` seconds.
   */
  static async join(options: MemberOptions): Promise<Member> {
    const { hosts, port, hub, patience } = options;
    const end = performance.now() + 1000 * patience;
    for (let i = 0; ; i++) {
      const host = hosts[i % hosts.length]!;
      try {
        return new Member(await connected(host, port), options);
      } catch (error) {
        if (performance.now() > end)
          throw new Error(`${hub} cannot be reached at ${host}:${port} (${messageOf(error)})`);
        await new Promise((resolve) => {
          setTimeout(resolve, RETRY);
        });
      }
    }
  }

  /** Every rank's value of the exchange, in the order of the ranks, once all have given theirs. */
  exchange(exchange: string, value: unknown): Promise<readonly unknown[]> {
    return new Promise((resolve) => {
      this.#waiting.set(exchange, resolve);
      writeLine(this.#socket, { exchange, value });
    });
  }

  /**
   * Gives up, and with it the run of all ranks. `told`: the user has seen the reason. Resolves when
   * the hub has it.
   */
  fail(text: string, told: boolean): Promise<void> {
    return new Promise((resolve) => {
      writeLine(this.#socket, { fail: text, told }, () => resolve());
    });
  }

  /** Leaves in good order. */
  leave(): Promise<void> {
    this.#leaving = true;
    clearInterval(this.#beat);
    return new Promise((resolve) => {
      writeLine(this.#socket, { bye: true }, () => {
        this.#socket.end();
        resolve();
      });
    });
  }

  get #hub(): string {
    return this.#hubHost === "" ? this.#options.hub : `${this.#options.hub} (host ${this.#hubHost})`;
  }

  #hear(message: Readonly<Record<string, unknown>>): void {
    this.#seen = performance.now();
    if (typeof message.welcome === "string") this.#hubHost = message.welcome;
    if (typeof message.end === "string") {
      this.#leaving = true;
      this.#options.onEnd(message.end, this.#hubHost === hostname() || message.told === true);
    }
    if (typeof message.exchange === "string" && Array.isArray(message.values)) {
      this.#waiting.get(message.exchange)?.(message.values);
      this.#waiting.delete(message.exchange);
    }
  }

  #look(): void {
    const { deadline } = this.#options;
    const now = performance.now();
    if (overslept(now - this.#last, deadline)) this.#seen = now;
    this.#last = now;
    writeLine(this.#socket, { beat: true });
    const silent = now - this.#seen;
    if (silent > 1000 * deadline * SILENCE) {
      this.#gone(
        `${this.#hub} has not shown a sign of life for ${Math.round(silent / 1000)} s: it is stopped, or its host is gone`,
      );
    }
  }

  /** One of those who are left speaks for all. */
  #gone(text: string): void {
    if (this.#leaving) return;
    this.#leaving = true;
    this.#options.onEnd(text, this.#options.rank > 1);
  }
}

function connected(host: string, port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, timeout: 5000 });
    socket.once("connect", () => {
      socket.setTimeout(0);
      socket.off("error", reject);
      resolve(socket);
    });
    socket.once("error", reject);
    socket.once("timeout", () => socket.destroy(new Error("no answer")));
  });
}
