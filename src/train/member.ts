/** What a run has from the sweep that it is a member of. */

import type { Batch } from "../data/batches.ts";
import type { Tensor } from "../engine/engine.ts";
import type { RunObserver } from "./loop.ts";
import type { HeldRows } from "./validate.ts";

export interface Member {
  /** Windows of raw rows that all members train on. */
  readonly ring: Tensor;
  /** The run's part of the batches, as the loop takes them. */
  feed(size: () => number): AsyncIterable<Batch>;
  /** The other members no longer wait for this one. May be called again. */
  leave(): void;
  /** The held-out rows; undefined where there are none. */
  heldOut(): Promise<HeldRows | undefined>;
  /** Aborted when all members are to save and stop. */
  readonly sweep: AbortSignal;
  /** Aborted when this member is to end early. */
  readonly ended: AbortSignal;
  /** Whether it evaluates at this step, too. */
  readonly evaluates?: ((step: number) => boolean) | undefined;
  /** Sees these steps after they are logged and before they are saved. */
  readonly rung?: RunObserver | undefined;
}
