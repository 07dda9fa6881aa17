/** Known faults of the reference in the loop and what it logs: rows 9, 19 and 20 of the list. */

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { ringRows } from "../../src/data/batches.ts";
import { RowSet } from "../../src/data/mask.ts";
import { Order } from "../../src/data/order.ts";
import { type Engine, HYPER } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import type { Report } from "../../src/run-files/metrics.ts";
import { trainLoop } from "../../src/train/loop.ts";
import { train } from "../../src/train/train.ts";
import { float64Of } from "../../src/util/bytes.ts";
import { POLL_MS } from "../support/limits.ts";
import { type LoopValues, loopInput } from "../support/loop-input.ts";
import { shardOf } from "../topk.ts";
import { memorySource } from "./source.ts";
import { drawRows, drawWeights, expectClose, HYPER_HERE, onEveryEngine, plainLosses, Trainer } from "./support.ts";

const shape = { d: 4, n: 8, k: 2, auxk: 2 };
const w = drawWeights(shape, 41);
const rows = drawRows(100, shape.d, 41);

/** The engine, with some of its operations replaced by `instead`. */
function watched(engine: Engine, instead: Partial<Engine>): Engine {
  return new Proxy(engine, {
    get(target, name) {
      const own: unknown = Reflect.get(instead, name) ?? Reflect.get(target, name);
      return typeof own === "function" ? own.bind(target) : own;
    },
  });
}

/** The loop over `rows` in file order, from the weights `w`. */
function loopOver(
  engine: Engine,
  watching: Engine,
  changes: Partial<LoopValues> & { readonly batch: number },
): LoopValues {
  const source = memorySource(rows);
  const order = new Order({ rows: rows.length, rowBytes: 16, grain: 1 }, new RowSet(rows.length), {
    seed: 0,
    shuffle: false,
    batch: changes.batch,
  });
  const { rows: _, lr: __, ...hyper } = HYPER_HERE;
  return {
    engine: watching,
    shard: shardOf(shape),
    state: Trainer.of(engine, { shape, w }).state,
    source,
    order,
    ring: engine.alloc("f32", [ringRows(order), shape.d]),
    schedule: { lr: 0.01, warmup: 0, decay: 0, steps: Math.floor(rows.length / changes.batch) },
    hyper,
    budget: rows.length,
    nonFinite: "stop",
    from: { step: 0, tokens: 0, position: { epoch: 0, row: 0, skipped: 0 } },
    logEvery: 1000,
    signal: new AbortController().signal,
    onLog: () => undefined,
    saveEvery: 0,
    onSave: async () => undefined,
    ...changes,
  };
}

describe("row 9", () => {
  onEveryEngine(
    "row 9: a step that is not logged reads nothing but its one flag, and computes no norm",
    async (engine) => {
      const reads: string[][] = [[]];
      let norms = 0;
      const watching = watched(engine, {
        read: (t) => {
          reads.at(-1)?.push(`${t.dtype}[${t.shape.join()}]`);
          return engine.read(t);
        },
        norm: (...given) => {
          norms++;
          engine.norm(...given);
        },
        load: (...given) => {
          reads.push([]);
          engine.load(...given);
        },
      });
      const logged: number[] = [];
      await trainLoop(
        loopInput(loopOver(engine, watching, { batch: 8, logEvery: 5, onLog: ({ step }) => logged.push(step) })),
      );
      expect(logged).toEqual([5, 10, 12]);
      const flags = reads.flat().filter((read) => read === "u32[1]");
      expect(flags).toHaveLength(12);
      // Beside the flags: the three small tensors of each of the three logged steps. No weights,
      // codes or rows.
      const others = reads.flat().filter((read) => read !== "u32[1]");
      expect(others.toSorted()).toEqual(
        [...Array(3).fill("f64[15]"), ...Array(3).fill("f64[1]"), ...Array(3).fill("f64[3]")].toSorted(),
      );
      expect(norms).toBe(3);
    },
  );

  onEveryEngine("row 9: the loop hands the next step over before it has heard of the last", async (engine) => {
    const steps = 12;
    let submitted = 0;
    let release: () => void = () => undefined;
    let waitedInVain = 0;
    const watching = watched(engine, {
      update: (...given) => {
        submitted++;
        release();
        engine.update(...given);
      },
      // What a step found is not there until the next one was handed over: a loop that waits for it
      // first goes on only by the timer.
      read: async (t) => {
        const bytes = engine.read(t);
        if (submitted < steps && waitedInVain === 0) {
          await new Promise<void>((resolve) => {
            const timer = setTimeout(() => {
              waitedInVain++;
              resolve();
            }, POLL_MS);
            release = () => {
              clearTimeout(timer);
              resolve();
            };
          });
        }
        return bytes;
      },
    });
    await trainLoop(loopInput(loopOver(engine, watching, { batch: 8 })));
    expect({ submitted, waitedInVain }).toEqual({ submitted: steps, waitedInVain: 0 });
  });

  it("row 9: without a run folder nothing is printed and nothing written; with one, a line every N steps", async () => {
    const out = vi.spyOn(process.stdout, "write").mockReturnValue(true);
    const err = vi.spyOn(process.stderr, "write").mockReturnValue(true);
    const options = {
      engine: "reference",
      latents: 8,
      k: 2,
      auxk: 2,
      batch: 8,
      holdout: 0,
      logEvery: 4,
      evalEvery: 5,
    } as const;
    const dir = await mkdtemp(join(tmpdir(), "saetta-faults-"));
    try {
      const { checkpoint, report } = await (await train(memorySource(rows), { ...options, out: false })).finished;
      expect({ checkpoint, step: report?.step }).toEqual({ checkpoint: undefined, step: 12 });
      await (await train(memorySource(rows), { ...options, evalEvery: 0, out: join(dir, "run") })).finished;
      const lines = (await readFile(join(dir, "run", "metrics.jsonl"), "utf8")).trim().split("\n");
      expect(lines.map((line) => (JSON.parse(line) as Report).step)).toEqual([4, 8, 12]);
      expect([out.mock.calls, err.mock.calls]).toEqual([[], []]);
    } finally {
      vi.restoreAllMocks();
      await rm(dir, { recursive: true });
    }
  });
});

describe("row 19", () => {
  onEveryEngine(
    "row 19: the scaled loss and the unscaled mse are both logged, under their own names",
    async (engine) => {
      const dead = Array.from({ length: shape.n }, (_, j) => j % 3 === 0);
      const hyper = { mseScale: 7, auxCoef: 0.25 };
      const trainer = Trainer.of(engine, { shape, w, age: dead.map((is) => (is ? 101 : 0)), hyper });
      const { metrics } = await trainer.step(rows.slice(0, 20));
      const { mse, auxkLoss, loss } = plainLosses(w, rows.slice(0, 20), { shape, dead, ...hyper });
      expect(auxkLoss).toBeGreaterThan(0.1);
      const numbers = [metrics.mse, metrics.auxk_loss, metrics.loss].map((value) => value ?? Number.NaN);
      expectClose(engine, numbers, [mse, auxkLoss, loss], "mse, auxk_loss, loss");
      expect(loss).toBeCloseTo(7 * mse + 0.25 * auxkLoss, 12);
    },
  );

  it("row 19: in every line of metrics.jsonl, loss = mse_scale mse + auxk_coef auxk_loss", async () => {
    const dir = await mkdtemp(join(tmpdir(), "saetta-faults-"));
    try {
      const options = {
        engine: "reference",
        latents: 8,
        k: 1,
        auxk: 3,
        auxkCoef: 0.5,
        deadTokens: 10,
        batch: 10,
        holdout: 0,
      } as const;
      const run = await train(memorySource(rows), { ...options, mseScale: 3, out: join(dir, "run") });
      await run.finished;
      const text = await readFile(join(dir, "run", "metrics.jsonl"), "utf8");
      const reports = text
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Record<"loss" | "mse" | "auxk_loss", number>);
      expect(reports).toHaveLength(10);
      expect(reports.filter(({ auxk_loss }) => auxk_loss > 0).length).toBeGreaterThan(5);
      for (const { loss, mse, auxk_loss } of reports) expect(loss).toBeCloseTo(3 * mse + 0.5 * auxk_loss, 12);
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});

describe("row 20", () => {
  const options = { engine: "reference", latents: 8, k: 2, auxk: 2, batch: 32, holdout: 0, out: false } as const;
  const runOf = async (more: { dropLast?: boolean; epochs?: number }) => {
    const { steps, tokens } = await (await train(memorySource(rows), { ...options, ...more })).finished;
    return { steps, tokens };
  };

  it("row 20: the last batch is dropped when it is not full, unless asked for", async () => {
    expect(await runOf({})).toEqual({ steps: 3, tokens: 96 });
    expect(await runOf({ dropLast: true })).toEqual({ steps: 3, tokens: 96 });
    expect(await runOf({ dropLast: false })).toEqual({ steps: 4, tokens: 100 });
  });

  it("row 20: only the end of the budget has a last batch; an epoch that ends within a batch goes on with the next", async () => {
    expect(await runOf({ epochs: 2 })).toEqual({ steps: 6, tokens: 192 });
    expect(await runOf({ epochs: 2, dropLast: false })).toEqual({ steps: 7, tokens: 200 });
  });

  onEveryEngine("row 20: a short last batch counts its own rows", async (engine) => {
    const told: number[] = [];
    const watching = watched(engine, {
      write: (t, bytes, at) => {
        if (t.dtype === "f64" && t.shape[0] === HYPER.length)
          told.push(float64Of(bytes.slice())[HYPER.indexOf("rows")]);
        engine.write(t, bytes, at);
      },
    });
    const mse: number[] = [];
    const changes: Partial<LoopValues> = {
      logEvery: 1,
      schedule: { lr: 0, warmup: 0, decay: 0, steps: 4 },
      onLog: (_at, _lr, found) => mse.push(found.mse ?? Number.NaN),
    };
    const end = await trainLoop(loopInput(loopOver(engine, watching, { batch: 32, ...changes })));
    expect(told).toEqual([32, 32, 32, 4]);
    expect(end).toMatchObject({ step: 4, tokens: 100 });
    const none = { shape, dead: Array<boolean>(shape.n).fill(false), mseScale: 1, auxCoef: 0 };
    const expected = [0, 32, 64, 96].map((first) => plainLosses(w, rows.slice(first, first + 32), none).mse);
    expectClose(engine, mse, expected, "mse of each batch", [1e-7, 2e-5]);
  });

  it("row 20: ages count the rows of a short batch, not those of a full one", async () => {
    const engine = createReferenceEngine();
    const trainer = Trainer.of(engine, { shape, w: { ...w, latentBias: w.latentBias.map(() => -100) } });
    const input = loopOver(engine, engine, { batch: 32, schedule: { lr: 0, warmup: 0, decay: 0, steps: 4 } });
    await trainLoop(loopInput({ ...input, state: trainer.state }));
    expect(await trainer.ages()).toEqual(Array(shape.n).fill(100));
  });
});
