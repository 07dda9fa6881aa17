/**
 * The time of each operation of a step, through the engine's interface: called often enough to be
 * measured, then the read of a number, less what such a read takes.
 */

import { allocStep, writeHyper } from "../engine/allocate.ts";
import type { Branch, Engine, Selection, SelectionPlan } from "../engine/engine.ts";
import { tiedStart } from "../sae/init.ts";
import { CORE_PARAMS } from "../sae/params.ts";
import { trainingSelections } from "../train/rank-shard.ts";
import { allocState, writeReals } from "../train/state.ts";
import { bytesOf } from "../util/bytes.ts";
import { median, type Sample } from "./statistics.ts";
import { BENCH_HYPER } from "./step.ts";
import { agesOf, DEAD_EVERY, drawRows, heldBack, type Situation, shardOf, type TopkSizes } from "./workload.ts";

/**
 * What bounds an operation: arithmetic (work in FLOP), a kind of traffic with memory (work in
 * bytes), or neither.
 */
export type Bound = "product" | "copy" | "read" | "update" | "neither";

export interface Operation {
  readonly name: string;
  readonly bound: Bound;
  /**
   * FLOP, or the bytes of parameters, moments and rows that must pass between memory and processor;
   * what fits the caches is not counted. 0 where neither bounds it.
   */
  readonly work: number;
  readonly call: () => void;
}

/** A measurement is at least so long. */
const LEAST_MS = 10;
const EMPTY_READS = 20;

/**
 * The operations of a step with every fourth latent dead. What it allocates, the engine gives back
 * when it is closed.
 */
export class OperationBench {
  readonly operations: readonly Operation[];
  readonly #enter: () => void;
  readonly #read: () => Promise<unknown>;
  readonly #repeats = new Map<string, number>();
  #idle: Sample = { ms: 0, cpuMs: 0 };

  /**
   * `start`, `state` (default: its own) can be shared with other benches of the engine: it writes
   * to them all that it needs.
   */
  constructor(
    engine: Engine,
    sizes: TopkSizes,
    batch: number,
    start = tiedStart(shardOf(sizes).dims, 0),
    s = allocState(engine, shardOf(sizes).dims, CORE_PARAMS, false),
  ) {
    const { d, n, k, auxk } = sizes;
    const shard = shardOf(sizes);
    const situation: Situation = { name: "operations", deadEvery: DEAD_EVERY, skewed: false };
    const p = s.params;
    const raw = engine.alloc("f32", [batch, d]);
    engine.write(raw, bytesOf(drawRows(sizes, batch, situation, start.decoder)));
    const rows = engine.alloc("u32", [batch]);
    engine.write(rows, bytesOf(Uint32Array.from({ length: batch }, (_, row) => row)));
    const x = engine.alloc(engine.real, [batch, d]);
    const t = allocStep(engine, shard.dims);
    writeHyper(engine, t, { ...BENCH_HYPER, rows: batch });
    const branch = (active: number): Branch => ({
      codes: engine.codes(batch, active),
      err: engine.alloc(engine.real, [batch, d]),
    });
    const live = branch(k);
    const dead = branch(auxk);
    const g = engine.grads({ dims: shard.dims, rows: batch, selections: trainingSelections(shard), dense: false });
    const select = ({ rule, among }: SelectionPlan, { codes }: Branch): Selection => ({ rule, among, codes });
    const ofLive = [select(shard.live, live)];
    const ofBoth = [...ofLive, select(shard.dead!, dead)];
    const through = (each: Branch, of?: Branch) => () => {
      engine.decode(p, each);
      engine.residual(p, x, t, each, of);
      engine.codeGrad(p, each, t);
    };
    const product = 2 * batch * n * d;
    const gathered = (active: number) => 4 * batch * active * d;
    this.#read = () => engine.read(t.bad);
    this.#enter = () => {
      writeReals(engine, p.encoder, heldBack(start.encoder, d, situation));
      writeReals(engine, p.decoder, start.decoder);
      engine.write(s.age, bytesOf(agesOf(n, situation)));
      // Not measured: what an engine keeps of the weights is made anew.
      engine.load(raw, rows, x, t);
      engine.encode(p, x, t, ofBoth, s.age);
    };
    // In the order of a step: each finds what the ones before it left.
    this.operations = [
      { name: "load", bound: "copy", work: 8 * batch * d, call: () => engine.load(raw, rows, x, t) },
      {
        name: "encode",
        bound: "product",
        work: product,
        call: () => engine.encode(p, x, t, ofLive, s.age),
      },
      {
        name: "encode, live and dead",
        bound: "product",
        work: product,
        call: () => engine.encode(p, x, t, ofBoth, s.age),
      },
      { name: "decode + residual + codeGrad", bound: "read", work: gathered(k), call: through(live) },
      { name: "the same of the dead", bound: "read", work: gathered(auxk), call: through(dead, live) },
      { name: "paramGrad", bound: "neither", work: 0, call: () => engine.paramGrad({ p, x, t, live, g }) },
      { name: "norm", bound: "read", work: 4 * n * d, call: () => engine.norm(p, g, t) },
      { name: "update", bound: "update", work: 24 * 2 * n * d, call: () => engine.update(s, g, t) },
      {
        name: "paramGrad, live and dead",
        bound: "neither",
        work: 0,
        call: () => engine.paramGrad({ p, x, t, live, dead, g }),
      },
      { name: "norm, live and dead", bound: "read", work: 4 * n * d, call: () => engine.norm(p, g, t) },
      { name: "update, live and dead", bound: "update", work: 24 * 2 * n * d, call: () => engine.update(s, g, t) },
    ];
  }

  /**
   * Before a round of all operations, in their order: weights, ages and codes as they find them,
   * and what a read takes.
   */
  async enter(): Promise<void> {
    this.#enter();
    await this.#read();
    const empty: Sample[] = [];
    for (let i = 0; i < EMPTY_READS; i++) empty.push(await this.#timed(() => undefined, 1));
    this.#idle = { ms: median(empty.map(({ ms }) => ms)), cpuMs: median(empty.map(({ cpuMs }) => cpuMs)) };
  }

  /** The operation once or, when it is short, often: its time and its CPU time, less a read's. */
  async time({ name, call }: Operation): Promise<Sample> {
    let repeats = this.#repeats.get(name);
    if (repeats === undefined) {
      repeats = Math.ceil(LEAST_MS / (await this.#timed(call, 1)).ms);
      this.#repeats.set(name, repeats);
    }
    const { ms, cpuMs } = await this.#timed(call, repeats);
    return { ms: Math.max(0, ms - this.#idle.ms) / repeats, cpuMs: Math.max(0, cpuMs - this.#idle.cpuMs) / repeats };
  }

  async #timed(call: () => void, repeats: number): Promise<Sample> {
    const cpu = process.cpuUsage();
    const began = performance.now();
    for (let i = 0; i < repeats; i++) call();
    await this.#read();
    const ms = performance.now() - began;
    const { user, system } = process.cpuUsage(cpu);
    return { ms, cpuMs: (user + system) / 1000 };
  }
}
