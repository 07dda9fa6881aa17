/**
 * Where the ranks meet: they connect, give values to each other, and show that they live. A rank
 * whose connection closes, that is silent for too long or that gives up ends the run of all. The
 * hub is in rank 0, in a thread that no computation holds up (watcher.ts), or in the process that
 * started the ranks (launch.ts).
 */

import { createServer, type Server, type Socket } from "node:net";
import { hostname } from "node:os";
import { messageOf, SaettaError } from "../util/errors.ts";
import { readLines, writeLine } from "./lines.ts";

export interface HubOptions {
  readonly size: number;
  /** Only ranks with the same token are let in. */
  readonly token: string;
  /** Seconds in which a silent rank ends the run. */
  readonly deadline: number;
  /** Seconds in which all ranks must have come. */
  readonly patience: number;
  /**
   * The run is over because of `text`, which the ranks have been told. `told`: somebody has shown
   * it to the user already.
   */
  readonly onEnd: (text: string, told: boolean) => void;
  /**
   * Milliseconds that rank 0 has to show a common reason as its own, before a rank that gives up is
   * named. Default: 300.
   */
  readonly grace?: number;
  /** A clock in milliseconds that never jumps. Default: that of the process. */
  readonly now?: () => number;
}

interface Member {
  readonly socket: Socket;
  readonly name: string;
  readonly pid: number;
  readonly host: string;
  seen: number;
  left: boolean;
}

/**
 * A share of the deadline after which silence is an end: what is left is for telling and ending.
 */
export const SILENCE = 0.6;

/** How often the ranks and the hub show that they live, in milliseconds. */
export function beatOf(deadline: number): number {
  return Math.min(1000, (1000 * deadline) / 20);
}

/**
 * True when this process has not run for so many `milliseconds` that it was stopped itself, and has
 * heard nobody meanwhile.
 */
export function overslept(milliseconds: number, deadline: number): boolean {
  return milliseconds > 3 * beatOf(deadline);
}

/** Default of `HubOptions.grace`: all ranks give up when the reason is common. */
const GRACE = 300;

export class Hub {
  readonly #options: HubOptions;
  readonly #server: Server;
  readonly #members = new Map<number, Member>();
  /** Values given so far in each exchange that is under way. */
  readonly #exchanges = new Map<string, unknown[]>();
  readonly #now: () => number;
  readonly #began: number;
  #beat: NodeJS.Timeout | undefined;
  #last: number;
  #ended = false;

  private constructor(options: HubOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#began = this.#now();
    this.#last = this.#began;
    this.#server = createServer((socket) => this.#greet(socket));
  }

  /** Listens on all interfaces. Rejects with SaettaError when the port is taken. */
  static async open(options: HubOptions, port: number): Promise<Hub> {
    const hub = new Hub(options);
    await new Promise<void>((resolve, reject) => {
      hub.#server.once("error", reject).listen(port, resolve);
    }).catch((cause: unknown) => {
      throw new SaettaError(`rank 0 cannot listen on port ${port} (${messageOf(cause)})`, {
        mend: "set MASTER_PORT, or SAETTA_PORT under torchrun, to a free port, the same on all ranks",
        cause,
      });
    });
    hub.#beat = setInterval(() => hub.#look(), beatOf(options.deadline));
    return hub;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /** Processes of the ranks that have come, by host. */
  get processes(): readonly { readonly host: string; readonly pid: number }[] {
    return [...this.#members.values()].map(({ host, pid }) => ({ host, pid }));
  }

  /** Ends the run of all ranks. */
  end(text: string, told = false): void {
    if (this.#ended) return;
    this.#ended = true;
    const telling = [...this.#members.values()].map(
      ({ socket }) =>
        new Promise<void>((resolve) => {
          writeLine(socket, { end: text, told }, resolve);
        }),
    );
    // A rank that reads no more does not hold up the others.
    const enough = new Promise<void>((resolve) => {
      setTimeout(resolve, 500);
    });
    Promise.race([Promise.all(telling), enough])
      .then(() => this.#options.onEnd(text, told))
      .catch(() => undefined);
  }

  /**
   * Resolves when every rank has left, or after `patience` milliseconds; then nobody listens any
   * more.
   */
  async close(patience = 2000): Promise<void> {
    for (let waited = 0; waited < patience && [...this.#members.values()].some(({ left }) => !left); waited += 20) {
      await new Promise((resolve) => {
        setTimeout(resolve, 20);
      });
    }
    this.#ended = true;
    clearInterval(this.#beat);
    for (const { socket } of this.#members.values()) socket.destroy();
    this.#server.close();
  }

  #greet(socket: Socket): void {
    socket.setNoDelay(true);
    socket.on("error", () => undefined); // followed by close
    let rank: number | undefined;
    readLines(socket, (message) => {
      if (rank === undefined) rank = this.#welcome(socket, message);
      else this.#hear(rank, message);
    });
    socket.on("close", () => {
      if (rank === undefined) return;
      const member = this.#members.get(rank)!;
      if (!member.left) this.end(`${member.name} ended without a word: it was killed (out of memory?), or it crashed`);
    });
  }

  /** The rank of a newcomer; a stranger is sent away. */
  #welcome(socket: Socket, { hello, host, pid, token }: Readonly<Record<string, unknown>>): number | undefined {
    const { size } = this.#options;
    const known =
      Number.isInteger(hello) && Number(hello) >= 0 && Number(hello) < size && token === this.#options.token;
    if (!known || typeof host !== "string" || typeof pid !== "number") {
      socket.destroy();
      return undefined;
    }
    const rank = Number(hello);
    const before = this.#members.get(rank);
    if (before !== undefined) {
      this.end(`two processes say that they are rank ${rank}: ${before.pid} on ${before.host} and ${pid} on ${host}`);
      return undefined;
    }
    this.#members.set(rank, {
      socket,
      name: `rank ${rank} (host ${host}, process ${pid})`,
      pid,
      host,
      seen: this.#now(),
      left: false,
    });
    writeLine(socket, { welcome: hostname() });
    return rank;
  }

  #hear(rank: number, message: Readonly<Record<string, unknown>>): void {
    const member = this.#members.get(rank)!;
    member.seen = this.#now();
    if (message.bye === true) member.left = true;
    if (typeof message.fail === "string") this.#giveUp(member, rank, message.fail, message.told === true);
    if (typeof message.exchange === "string") this.#exchange(rank, message.exchange, message.value);
  }

  /** A rank gives up. Where all do for the same reason, rank 0 shows it. */
  #giveUp(member: Member, rank: number, text: string, told: boolean): void {
    if (told || rank === 0) this.end(text, told);
    else setTimeout(() => this.end(`${member.name}: ${text}`), this.#options.grace ?? GRACE);
  }

  #exchange(rank: number, exchange: string, value: unknown): void {
    const values = this.#exchanges.get(exchange) ?? [];
    this.#exchanges.set(exchange, values);
    values[rank] = value ?? null;
    if (Object.keys(values).length < this.#options.size) return;
    this.#exchanges.delete(exchange);
    for (const { socket } of this.#members.values()) writeLine(socket, { exchange, values });
  }

  #look(): void {
    const { deadline, patience, size } = this.#options;
    const now = this.#now();
    const late = overslept(now - this.#last, deadline);
    this.#last = now;
    for (const member of this.#members.values()) {
      if (late) member.seen = now;
      writeLine(member.socket, { beat: true });
      if (!member.left && now - member.seen > 1000 * deadline * SILENCE) {
        this.end(
          `${member.name} has not shown a sign of life for ${Math.round((now - member.seen) / 1000)} s: it is stopped, or its host is gone`,
        );
      }
    }
    if (this.#members.size < size && now - this.#began > 1000 * patience) {
      const missing = Array.from({ length: size }, (_, rank) => rank).filter((rank) => !this.#members.has(rank));
      this.end(
        `${missing.length === 1 ? "rank" : "ranks"} ${missing.join(", ")} of ${size} did not come within ${patience} s`,
      );
    }
  }
}
