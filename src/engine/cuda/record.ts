/**
 * A step recorded as a CUDA graph and replayed with one call. What it takes is fixed then:
 * addresses, shapes and the room for dead latents, so there is a graph for each such room. A step
 * runs once as a normal step, which allocates what it needs and finds its products, before it is
 * recorded. Loads are queued apart, before the graph: new rows wait for them, and for no more of
 * the step.
 */

import type { CudaContext } from "./context.ts";
import { NotRecordable } from "./driver/device.ts";
import { copyOf, watchCopies } from "./memory/copies.ts";
import type { CudaTensor } from "./memory/tensor.ts";
import type { DeadUse } from "./ops/encode.ts";

const RELAXED = 2;

/** What the operations of a step say about it, as they are called. */
export interface StepUse {
  /** The dead sides of encodes. */
  readonly dead: Set<DeadUse>;
  /** Loads, which come first. */
  readonly loads: (() => void)[];
  /** Another operation was called; a load after it stands where it cannot be queued apart. */
  others: boolean;
  mixed: boolean;
  /** Tensors whose copies in the compute type are used. */
  readonly copied: Set<CudaTensor>;
}

function nothing(): StepUse {
  return { dead: new Set(), loads: [], others: false, mixed: false, copied: new Set() };
}

export class RecordedStep {
  readonly #cuda: CudaContext;
  readonly #step: () => void;
  /** Calls the step and queues what it held back. `use` records what it used. */
  readonly #watched: (step: () => void, use: StepUse) => void;
  #use: StepUse | undefined;
  #generation = 0;
  /** Rooms that the step has run with; the graph, once it has been recorded. */
  readonly #graphs = new Map<string, number | undefined>();

  constructor(cuda: CudaContext, step: () => void, watched: (step: () => void, use: StepUse) => void) {
    this.#cuda = cuda;
    this.#step = step;
    this.#watched = watched;
  }

  run(): void {
    const cuda = this.#cuda;
    const found = this.#use;
    if (found === undefined || found.mixed || this.#generation !== cuda.generation || cuda.kernels.synchronous) {
      this.forget();
      this.#runAsItIs();
      return;
    }
    const { driver, stream } = cuda.device;
    // Written from outside since: what is recorded takes the copies for right.
    for (const tensor of found.copied) if (!tensor.freed) copyOf(cuda, tensor);
    for (const { list, ages, hyper } of found.dead) list.begin(ages, hyper);
    const key = [...found.dead].map(({ list }) => list.capacity).join();
    let graph = this.#graphs.get(key);
    if (graph === undefined && this.#graphs.has(key)) {
      graph = this.#record();
      if (graph !== undefined && this.#generation === cuda.generation) this.#graphs.set(key, graph);
    }
    if (graph === undefined) {
      this.#runAsItIs(key);
      return;
    }
    for (const load of found.loads) load();
    driver.call("replaying a step", "cuGraphLaunch", graph, stream);
    for (const { list } of found.dead) list.end();
    cuda.replays++;
  }

  /** Gives the graphs back. */
  forget(): void {
    for (const graph of this.#graphs.values())
      if (graph !== undefined) this.#cuda.device.driver.attempt("cuGraphExecDestroy", graph);
    this.#graphs.clear();
  }

  /** Calls the step and notes in `use` what its operations use. */
  #watch(use: StepUse): void {
    watchCopies(this.#cuda, use.copied, () => this.#watched(this.#step, use));
  }

  #runAsItIs(key?: string): void {
    const found = nothing();
    this.#watch(found);
    this.#use = found;
    this.#generation = this.#cuda.generation;
    this.#graphs.set(key ?? [...found.dead].map(({ list }) => list.lastCapacity).join(), undefined);
  }

  /** The executable graph; undefined when the step asked for memory after all. */
  #record(): number | undefined {
    const { device } = this.#cuda;
    const { driver, stream } = device;
    driver.call("beginning to record a step", "cuStreamBeginCapture_v2", stream, RELAXED);
    device.recording = true;
    let isWhole = false;
    const graph = new BigUint64Array(1);
    try {
      this.#watch(nothing());
      isWhole = true;
    } catch (thrown) {
      if (!(thrown instanceof NotRecordable)) throw thrown;
    } finally {
      device.recording = false;
      if (isWhole) driver.call("recording a step", "cuStreamEndCapture", stream, graph);
      else driver.attempt("cuStreamEndCapture", stream, graph);
    }
    try {
      return isWhole
        ? driver.get("preparing a recorded step", "cuGraphInstantiateWithFlags", Number(graph[0]), 0)
        : undefined;
    } finally {
      if (graph[0] !== 0n) driver.attempt("cuGraphDestroy", Number(graph[0]));
    }
  }
}
