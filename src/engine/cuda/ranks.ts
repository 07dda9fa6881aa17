/**
 * What a card does together with others: reductions, which are held back until something else is called so that neighbours become one launch; and the top k of all shards.
 * They are queued on the stream of the operations, but for what goes on beside those (`beside`).
 */

import { type Collective, groupOf, type WireType } from "../../collective/collective.ts";
import { SaettaError } from "../../util/errors.ts";
import type { Codes, DType, Over, ReduceOp, Step, Tensor } from "../engine.ts";
import type { Address } from "./driver.ts";
import { WHERE } from "./libraries.ts";
import type { Machine } from "./machine.ts";
import { addressOf, at, type CudaTensor, ownCodes, ownTensor, stepAddresses } from "./memory.ts";

interface Reduction {
  readonly tensor: CudaTensor;
  readonly op: ReduceOp;
  readonly over: Over;
}

export class Ranks {
  readonly collective: Collective;
  readonly #m: Machine;
  readonly #held: Reduction[] = [];
  /** Of each exchange beside the operations: before it, after it. */
  readonly #events = new Map<string, readonly [number, number]>();

  constructor(m: Machine, collective: Collective) {
    this.#m = m;
    this.collective = collective;
  }

  sizeOf(over: Over): number {
    return groupOf(this.collective.grid, over).size;
  }

  /** `inStep`: in a step that is recorded all ranks call the same operations and nothing else, so that neighbours become one launch on all of them. */
  allReduce(t: Tensor, op: ReduceOp, over: Over, inStep: boolean): void {
    const tensor = ownTensor(t);
    this.#held.push({ tensor, op, over });
    this.#m.wrote(tensor);
    if (!inStep) this.flush();
  }

  /** Queues what is held back; before every other operation. */
  flush(): void {
    const held = this.#held.splice(0);
    const { stream } = this.#m.device;
    while (held.length > 0) {
      // Those of one group of ranks: launches of several would have to come in the same order on all of them.
      const size = this.sizeOf(held[0]!.over);
      const other = held.findIndex(({ over }) => this.sizeOf(over) !== size);
      const together = held.splice(0, other < 0 ? held.length : other);
      const all = () => {
        for (const { tensor, op, over } of together) {
          const count = tensor.shape.reduce((a, b) => a * b, 1);
          this.collective.allReduce({ at: addressOf(tensor), count, dtype: wireOf(tensor.dtype) }, op, over, stream);
        }
      };
      if (together.length > 1) this.together(all);
      else all();
    }
  }

  /** Does `body`, in which the collective's operations are called, so that they become one launch. */
  together(body: () => void): void {
    if (this.collective.together === undefined) body();
    else this.collective.together(body);
  }

  /**
   * What `body` queues in the stream that it is given goes on beside the operations to come, after those already called. Returns what makes the operations from then on wait for it.
   * `what`: for people, and no other exchange that is under way has it.
   */
  beside(what: string, body: (stream: Address) => void): () => void {
    const { device } = this.#m;
    const { driver, stream, exchange } = device;
    const events = this.#events.get(what) ?? [device.event(), device.event()];
    this.#events.set(what, events);
    const [before, after] = events;
    driver.call(`marking what comes before ${what}`, "cuEventRecord", before, stream);
    driver.call(`waiting to begin ${what}`, "cuStreamWaitEvent", exchange, before, 0);
    body(exchange);
    driver.call(`marking the end of ${what}`, "cuEventRecord", after, exchange);
    return () => driver.call(`waiting for ${what}`, "cuStreamWaitEvent", stream, after, 0);
  }

  close(): void {
    for (const event of [...this.#events.values()].flat()) this.#m.device.driver.attempt("cuEventDestroy_v2", event);
    this.#events.clear();
  }

  merge(z: Codes, k: number, t: Step | undefined): void {
    const m = this.#m;
    const { shards, shard } = this.collective.grid;
    const { rows: B, capacity: slots } = z;
    const count = B * slots;
    const { latent, value } = ownCodes(z, B).from();
    const all = m.room.get("values of all shards", 4 * shards * count);
    this.collective.allGather(
      { at: value, count, dtype: "f32" },
      { at: all, count: shards * count, dtype: "f32" },
      "shards",
      m.device.stream,
    );
    const step = t && stepAddresses(t);
    if (t !== undefined && step !== undefined) m.device.fill(at(t.fired, "u32"), 0, 4 * t.fired.shape[0]!);
    const grid = { blocks: Math.ceil(count / 256), threads: 256 };
    m.kernels.launch("merge_codes", grid, {
      ...{ all, shards, shard, B, slots, k },
      ...{ latent, value },
      fired: step?.fired ?? 0,
      hyper: step?.hyper ?? 0,
    });
  }
}

function wireOf(dtype: DType): WireType {
  if (dtype === "f64" || dtype === "f32" || dtype === "u32" || dtype === "u8") return dtype;
  throw new SaettaError(`a tensor of ${dtype} cannot be reduced`, { where: WHERE });
}
