import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { writeActivations } from "../../test/support/activations.ts";
import { readEvents, readWandb } from "../../test/support/log-readers.ts";
import { learnableRows } from "../../test/support/memory-source.ts";
import { checkpointOf, checkpointsOf, metricsOf } from "../../test/support/runs.ts";
import { openSource } from "../data/open.ts";
import type { Source } from "../data/source.ts";
import { resume } from "./resume.ts";
import { train } from "./train.ts";

const STEPS = 12;
const OPTIONS = {
  latents: 16,
  k: 2,
  auxk: 0,
  batch: 16,
  statisticsRows: 64,
  holdout: 0.2,
  engine: "reference",
  evalEvery: 4,
} as const;
let folder: string;
let source: Source;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "saetta-logs-"));
  source = await openSource([await writeActivations(join(folder, "acts.h5"), learnableRows(400, 6, 12), [40, 10, 6])]);
});
afterAll(async () => {
  await source.close();
  rmSync(folder, { recursive: true });
});

const eventFiles = (run: string): string[] =>
  readdirSync(run)
    .filter((name) => /^events\.out\.tfevents\.\d{10}\./.test(name))
    .toSorted()
    .map((name) => join(run, name));
const wandbFiles = (run: string): string[] =>
  readdirSync(join(run, "wandb"))
    .toSorted()
    .flatMap((name) => {
      const files = readdirSync(join(run, "wandb", name)).filter((it) => it.endsWith(".wandb"));
      return files.map((it) => join(run, "wandb", name, it));
    });
const finish = async (run: Awaited<ReturnType<typeof train>>) => (await run.finished).sae.close();

describe("the logs of a run", () => {
  it("say what metrics.jsonl says, and the run is the same with and without them", async () => {
    const [logged, plain] = [join(folder, "logged"), join(folder, "plain")];
    const options = { ...OPTIONS, tokens: 16 * STEPS, logEvery: 1 };
    await finish(await train(source, { ...options, out: logged, tensorboard: true, wandb: "sparse" }));
    await finish(await train(source, { ...options, out: plain }));
    const metrics = await metricsOf(logged);
    expect(metrics).toHaveLength(STEPS);
    expect(await metricsOf(plain)).toEqual(metrics);
    const [last = ""] = (await checkpointsOf(plain)).slice(-1);
    expect(await checkpointOf(logged, last)).toEqual(await checkpointOf(plain, last));
    expect(readdirSync(plain).filter((name) => /tfevents|wandb/.test(name))).toEqual([]);

    const [version, ...events] = readEvents(readFileSync(eventFiles(logged)[0]!));
    expect(version!.version).toBe("brain.Event:2");
    expect(events.map(({ step }) => step)).toEqual(metrics.map(({ step }) => step));
    for (const [i, { scalars, session }] of events.entries()) {
      expect(session).toBeUndefined();
      for (const [name, value] of Object.entries(metrics[i]!)) {
        if (value !== null) expect(scalars[name]).toBe(Math.fround(value as number));
      }
      expect("holdout_fvu" in scalars).toBe("holdout_fvu" in metrics[i]!);
    }
    expect(events.filter(({ scalars }) => "holdout_fvu" in scalars).length).toBeGreaterThan(1);

    const [file = "", ...more] = wandbFiles(logged);
    expect(more).toEqual([]);
    const id = /offline-run-\d{8}_\d{6}-([a-z0-9]{8})\/run-([a-z0-9]{8})\.wandb$/.exec(file);
    expect(id?.[1]).toBe(id?.[2]);
    const records = readWandb(readFileSync(file));
    expect(records.map(({ num }) => num)).toEqual(records.map((_, i) => i + 1));
    expect(records.map(({ kind }) => kind)).toEqual([
      "header",
      "run",
      ...Array(STEPS).fill("history"),
      "summary",
      "exit",
      "final",
      "footer",
    ]);
    const [header, run, ...rest] = records;
    expect(header).toBeDefined();
    const text = (number: number) => String(run!.fields.get(number)![0]);
    expect([text(1), text(3), text(8)]).toEqual([id?.[1], "sparse", "logged"]);
    const config = JSON.parse(readFileSync(join(logged, "config.json"), "utf8")) as Record<string, unknown>;
    delete config.run; // what the run found out is no choice
    expect(run!.items).toEqual(config);
    for (const [i, { items }] of rest.slice(0, STEPS).entries()) {
      expect(items).toMatchObject(
        Object.fromEntries(Object.entries(metrics[i]!).filter(([, value]) => value !== null)),
      );
      expect(items._step).toBe(i + 1);
    }
    const summary = rest[STEPS]!.items;
    expect(summary).toMatchObject({
      step: STEPS,
      loss: metrics.at(-1)!.loss,
      holdout_fvu: metrics.at(-1)!.holdout_fvu,
    });
    expect(rest[STEPS + 1]!.fields.get(1)).toBeUndefined(); // exit code 0
  });

  it("go on in files of their own when a run is resumed, and hold what W&B needs of the earlier ones", async () => {
    const out = join(folder, "resumed");
    await finish(
      await train(source, { ...OPTIONS, tokens: 16 * 6, logEvery: 2, out, tensorboard: true, wandb: "sparse" }),
    );
    await finish(await resume(out, { tokens: 16 * 10 }));
    const [first, second] = eventFiles(out).map((path) => readEvents(readFileSync(path)));
    expect(first!.map(({ step }) => step)).toEqual([0, 2, 4, 6]);
    expect(second!.map(({ step, session }) => [step, session])).toEqual([
      ...[[0], [7], [8], [10]].map(([step]) => [step, step === 7 ? 1 : undefined]),
    ]);
    const files = wandbFiles(out);
    expect(new Set(files.map((path) => basename(path))).size).toBe(1);
    expect(files).toHaveLength(2);
    const [one, two] = files.map((path) => readWandb(readFileSync(path)).filter(({ kind }) => kind === "history"));
    expect(one!.map(({ items }) => items._step)).toEqual([2, 4, 6]);
    expect(two!.map(({ items }) => items._step)).toEqual([2, 4, 6, 8, 10]); // the newest holds all
    for (const [i, { items }] of one!.entries()) {
      const { _timestamp, ...rest } = items;
      expect(two![i]!.items).toMatchObject(rest);
      expect(two![i]!.items._timestamp).toBeGreaterThan((_timestamp as number) - 1);
    }
    const times = two!.map(({ items }) => items._timestamp as number);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    const elapsed = two!.map(({ items }) => items.elapsed_s as number);
    expect(times[2]! - times[0]!).toBeCloseTo(elapsed[2]! - elapsed[0]!, 5);
    await finish(await resume(out, { tokens: 16 * 12, tensorboard: false }));
    expect(eventFiles(out)).toHaveLength(2);
    expect(wandbFiles(out)).toHaveLength(3);
  });

  it("keep their order though the system's clock is set back, in the run and between its parts", async () => {
    const out = join(folder, "clock");
    let now = Date.UTC(2030, 0, 1);
    vi.spyOn(Date, "now").mockImplementation(() => (now -= 3_600_000));
    try {
      await finish(await train(source, { ...OPTIONS, tokens: 16 * 6, logEvery: 2, out, tensorboard: true }));
      await finish(await resume(out, { tokens: 16 * 8 }));
    } finally {
      vi.restoreAllMocks();
    }
    const [first, second] = eventFiles(out).map((path) => readEvents(readFileSync(path)));
    expect(first!.map(({ step }) => step)).toEqual([0, 2, 4, 6]);
    expect(second!.map(({ step }) => step)).toEqual([0, 7, 8]);
    const elapsed = readFileSync(join(out, "metrics.jsonl"), "utf8")
      .split("\n", 3)
      .map((line) => (JSON.parse(line) as { elapsed_s: number }).elapsed_s);
    const times = first!.slice(1).map(({ wallTime }) => wallTime);
    expect(times).toEqual(elapsed.map((each) => expect.closeTo(times[0]! + each - elapsed[0]!, 3)));
  });

  it("end with exit code 1 when the run fails, and cannot stop it themselves", async () => {
    const out = join(folder, "failed");
    const failing: Source = {
      ...source,
      read: (first, count, into, signal) => {
        if (existsSync(join(out, "metrics.jsonl"))) throw new Error("the disk is gone");
        return source.read(first, count, into, signal);
      },
    };
    const options = { ...OPTIONS, tokens: 16 * 6, out, wandb: "sparse" };
    await expect((await train(failing, options)).finished).rejects.toThrow("the disk is gone");
    const exit = readWandb(readFileSync(wandbFiles(out)[0]!)).find(({ kind }) => kind === "exit");
    expect(exit!.fields.get(1)).toEqual([1]);

    const blocked = join(folder, "blocked");
    await finish(await train(source, { ...OPTIONS, tokens: 16 * 6, out: blocked }));
    writeFileSync(join(blocked, "wandb"), "in the way");
    const notes: string[] = [];
    const onNote = (note: string) => {
      if (!note.startsWith("W&B")) return;
      notes.push(note);
      throw new Error("a listener that fails");
    };
    await finish(await resume(blocked, { tokens: 16 * 10, tensorboard: true, wandb: "sparse", onNote }));
    expect(notes).toEqual([
      expect.stringMatching(/^W&B's offline run cannot be made \(it exists already\); the run goes on without it$/),
    ]);
    expect(eventFiles(blocked)).toHaveLength(1);
    await finish(await train(source, { ...OPTIONS, tokens: 16 * 6, out: false, tensorboard: true, wandb: "sparse" }));
  });
});
