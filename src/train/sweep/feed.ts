/**
 * Batches for several runs that train in step: rows are read, checked and brought to the engine
 * once for all of them. The next batch is made when every member has asked for it; a member that is
 * ahead, as after a resume from checkpoints of different steps, waits until the others come to its
 * place. So each gets the batches that it would have read alone.
 */

import { type Batch, batches, type NonFinite, type Ring } from "../../data/batches.ts";
import type { RowOrder } from "../../data/order.ts";
import type { Source } from "../../data/source.ts";
import type { Progress } from "../start-state.ts";

export interface FeedOptions {
  readonly source: Source;
  readonly order: RowOrder;
  readonly ring: Ring;
  readonly nonFinite: NonFinite;
  /** Ends the batches of all members after the same step. */
  readonly signal: AbortSignal;
}

/** A member's place at the table. */
export interface Seat {
  /**
   * Batches of `size()` rows from the member's progress on, until that is 0. Members at the same
   * place ask for the same size.
   */
  feed(size: () => number): AsyncIterable<Batch>;
  /** The others no longer wait for this member. May be called again. */
  leave(): void;
}

interface Member {
  /** Rows trained on: the same for the same place in the data. */
  tokens: number;
  position: Progress["position"];
  /** The batch that it waits for. */
  waits:
    | {
        readonly rows: number;
        readonly resolve: (batch: Batch | undefined) => void;
        readonly reject: (thrown: unknown) => void;
      }
    | undefined;
}

export class BatchFeed {
  readonly #options: FeedOptions;
  readonly #members = new Set<Member>();
  #reading: AsyncGenerator<Batch, void, void> | undefined;
  /** Where `#reading` is, in rows trained on; and the size of its next batch. */
  #at = 0;
  #rows = 0;
  #making = false;

  constructor(options: FeedOptions) {
    this.#options = options;
  }

  /** Precondition: no batch was made yet. */
  join({ tokens, position }: Pick<Progress, "tokens" | "position">): Seat {
    const member: Member = { tokens, position, waits: undefined };
    this.#members.add(member);
    const leave = () => {
      if (this.#members.delete(member)) this.#makeNext();
    };
    const next = (rows: number) =>
      new Promise<Batch | undefined>((resolve, reject) => {
        member.waits = { rows, resolve, reject };
        this.#makeNext();
      });
    async function* feed(size: () => number): AsyncGenerator<Batch, void, void> {
      try {
        for (let rows = size(); rows > 0; rows = size()) {
          const batch = await next(rows);
          if (batch === undefined) return;
          yield batch;
        }
      } finally {
        leave();
      }
    }
    return { feed, leave };
  }

  /** Stops reading. Every member has left. */
  async close(): Promise<void> {
    await this.#reading?.return();
  }

  /** Makes a batch if every member waits for one. The members get what went wrong. */
  #makeNext(): void {
    if (this.#making || this.#members.size === 0) return;
    for (const { waits } of this.#members) if (waits === undefined) return;
    this.#making = true;
    this.#make()
      .catch((thrown: unknown) => this.#answer([...this.#members], ({ reject }) => reject(thrown)))
      .finally(() => {
        this.#making = false;
        this.#makeNext();
      });
  }

  async #make(): Promise<void> {
    const members = [...this.#members];
    const tokens = Math.min(...members.map((member) => member.tokens));
    const here = members.filter((member) => member.tokens === tokens);
    const batch = this.#options.signal.aborted ? undefined : await this.#read(here[0]!);
    if (batch === undefined) {
      this.#answer(members, ({ resolve }) => resolve(undefined));
      return;
    }
    this.#at = tokens + batch.size;
    for (const member of here) {
      member.tokens = this.#at;
      member.position = batch.next;
    }
    this.#answer(here, ({ resolve }) => resolve(batch));
  }

  async #read({ tokens, position, waits }: Member): Promise<Batch | undefined> {
    const { source, order, ring, nonFinite, signal } = this.#options;
    if (this.#reading === undefined || this.#at !== tokens) {
      await this.#reading?.return();
      this.#reading = batches({ source, order, ring, nonFinite }, position, () => this.#rows, { signal });
    }
    this.#rows = waits!.rows;
    const { value } = await this.#reading.next();
    return value ?? undefined;
  }

  #answer(members: readonly Member[], answer: (waits: NonNullable<Member["waits"]>) => void): void {
    for (const member of members) {
      const { waits } = member;
      member.waits = undefined;
      if (waits !== undefined) answer(waits);
    }
  }
}
