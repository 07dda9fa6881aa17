/**
 * `saetta train` and `resume` as several ranks: the run folder is that of one process, the grid may
 * change, and a rank that is gone ends the run.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { float32Of, float64Of } from "../../src/util/bytes.ts";
import { CLI, type Running, saetta, start } from "../cli/saetta.ts";
import { writeActivations } from "../support/activations.ts";
import { learnableRows } from "../support/memory-source.ts";
import { checkpointOf, checkpointsOf, metricsOf } from "../support/runs.ts";
import { mpirun, whyNoRanks } from "./support.ts";

const WIDTH = 8;
const ROWS = 900;
const OPTIONS = [
  "--latents",
  "24",
  "--k",
  "3",
  "--auxk",
  "4",
  "--batch",
  "24",
  "--dead-tokens",
  "200",
  "--log-every",
  "1",
  "--eval-every",
  "10",
];
/** Small enough for the float64 engine. */
const EXACT = [
  ...OPTIONS,
  "--engine",
  "reference",
  "--clip",
  "1",
  "--ema",
  "0.9",
  "--normalize",
  "scale",
  "--warmup",
  "0",
  "--decay",
  "0",
  "--encoder-rescale",
];
/**
 * Moments at which a rank is killed, and as many at which one is stopped. More than one are random
 * moments; `npm run test:grid-faults` tries 20.
 */
const MOMENTS = Number(process.env.SAETTA_GRID_FAULTS || 1);
const DEADLINE = 10;

let folder = "";
const why = whyNoRanks();

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-grid-"));
  await writeActivations(join(folder, "acts.h5"), learnableRows(ROWS, WIDTH, 12), [ROWS, WIDTH]);
});

afterAll(() => rm(folder, { recursive: true, force: true }));

const path = (name: string) => join(folder, name);

async function tensors(run: string, step: string, file: string): Promise<Map<string, number[]>> {
  const opened = await openSafetensors(join(path(run), "checkpoints", step, file));
  const found = new Map<string, number[]>();
  for (const [name, { dtype }] of opened.tensors) {
    const bytes = await opened.read(name);
    found.set(name, dtype === "F64" ? [...float64Of(bytes)] : dtype === "F32" ? [...float32Of(bytes)] : [...bytes]);
  }
  await opened.close();
  return found;
}

async function sameCheckpoint(a: string, b: string, within: number): Promise<void> {
  const [last] = (await checkpointsOf(path(a))).slice(-1);
  expect((await checkpointsOf(path(b))).at(-1)).toBe(last);
  for (const file of ["sae.safetensors", "ema.safetensors", "optimizer.safetensors"]) {
    const [expected, found] = [await tensors(a, last!, file), await tensors(b, last!, file)];
    expect([...found.keys()]).toEqual([...expected.keys()]);
    for (const [name, values] of expected) {
      const others = found.get(name)!;
      expect(others).toHaveLength(values.length);
      const off = values.reduce((worst, value, i) => Math.max(worst, Math.abs(value - others[i]!)), 0);
      expect(off, `${b}, ${file}, ${name}`).toBeLessThanOrEqual(within);
    }
  }
}

async function sameMetrics(a: string, b: string, within: number): Promise<void> {
  const [expected, found] = [await metricsOf(path(a)), await metricsOf(path(b))];
  expect(found).toHaveLength(expected.length);
  for (const [i, line] of expected.entries()) {
    // A run that ended before it was extended has evaluated its average there.
    const names = (of: object) => Object.keys(of).filter((name) => !name.endsWith("_ema"));
    expect(names(found[i]!)).toEqual(names(line));
    for (const [name, value] of Object.entries(line)) {
      expect(Math.abs(Number(found[i]![name]) - Number(value)), `step ${i + 1}, ${name}`).toBeLessThanOrEqual(within);
    }
  }
}

/** Resolves when the run has logged so many steps; rejects when it ended before. */
async function logged(run: string, lines: number, running: Running): Promise<void> {
  const over = { is: false };
  const stop = () => {
    over.is = true;
  };
  running.ended.then(stop, stop);
  while (!over.is) {
    const text = await readFile(join(path(run), "metrics.jsonl"), "utf8").catch(() => "");
    if (text.split("\n").length > lines) return;
    await sleep(20);
  }
  throw new Error(`ended before step ${lines}: ${(await running.ended).err}`);
}

/** The processes of the ranks that train into this run folder, in the order of the ranks. */
async function ranksOf(run: string): Promise<number[]> {
  const found: number[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const [words, env] = await Promise.all(
      ["cmdline", "environ"].map((name) => readFile(`/proc/${pid}/${name}`, "utf8").catch(() => "")),
    );
    const rank = /(?:^|\0)OMPI_COMM_WORLD_RANK=(\d+)/.exec(env!)?.[1];
    if (words!.includes(CLI) && words!.split("\0").includes(run) && rank !== undefined)
      found[Number(rank)] = Number(pid);
  }
  return found;
}

describe.skipIf(why !== undefined)(`a run of several ranks${why === undefined ? "" : `: ${why}`}`, () => {
  const train = (out: string, tokens: number, ...rest: string[]) =>
    saetta(folder, "train", "acts.h5", ...EXACT, "--tokens", `${tokens}`, "--out", out, ...rest);
  const ended = async (running: ReturnType<typeof saetta>) => {
    const { code, err, out } = await running;
    expect({ code, err: code === 0 ? "" : err }).toEqual({ code: 0, err: "" });
    return { err, out };
  };

  beforeAll(async () => {
    await ended(train("alone", 480));
  });

  it("leaves the same run folder, and goes on on other grids", async () => {
    const two = async () => {
      const { out } = await ended(train("two", 240, "--shards", "2", "--replicas", "2"));
      expect(out.match(/^done/gm)).toHaveLength(1); // rank 0 alone prints
      const { err } = await ended(
        saetta(folder, "resume", "two", "--tokens", "480", "--replicas", "1", "--shards", "3"),
      );
      expect(err.match(/grid differs/g)).toHaveLength(1);
    };
    const one = async () => {
      await ended(train("one", 240));
      const resumed = await ended(saetta(folder, "resume", "one", "--tokens", "480", "--nproc", "3"));
      expect(resumed.err).toContain("grid differs");
    };
    await Promise.all([two(), one()]);
    for (const run of ["two", "one"]) {
      await sameMetrics("alone", run, 1e-9);
      await sameCheckpoint("alone", run, 1e-9);
    }
    const config = JSON.parse(await readFile(join(path("one"), "config.json"), "utf8")) as Record<string, unknown>;
    expect([config.shards, config.replicas]).toEqual([1, 3]);
  });

  // They wait for processes to start and to end more than they compute.
  it.concurrent("starts from another autoencoder, each shard from its own latents", async () => {
    const from = ["--init", "alone", "--no-encoder-rescale", "--no-shuffle"];
    await Promise.all([
      ended(train("init-alone", 120, ...from)),
      ended(train("init-two", 120, ...from, "--shards", "2")),
    ]);
    await sameMetrics("init-alone", "init-two", 1e-9);
    await sameCheckpoint("init-alone", "init-two", 1e-9);
  });

  it.concurrent("is joined under mpirun as it is", async () => {
    const words = [CLI, "train", "acts.h5", ...EXACT, "--tokens", "240", "--out", "mpirun", "--shards", "2"];
    const child = spawn("mpirun", [...mpirun(2), process.execPath, ...words], { cwd: folder, stdio: "ignore" });
    expect(await once(child, "exit")).toEqual([0, null]);
    expect(await metricsOf(path("mpirun"))).toHaveLength(10);
  });

  it.concurrent("says so when a rank cannot go on, once, with the exit code of one process", async () => {
    const { code, err } = await train("alone", 480, "--shards", "2"); // rank 0 finds that the folder exists
    expect(code).toBe(1);
    expect(err.match(/exists already/g)).toHaveLength(1);
    expect(err.trim().split("\n")).toHaveLength(1);
  });

  const faulty = [
    "--latents",
    "512",
    "--k",
    "8",
    "--batch",
    "256",
    "--engine",
    "cpu",
    "--threads",
    "1",
    "--tokens",
    MOMENTS > 1 ? "153600" : "25600",
  ];
  const often = [...faulty, "--log-every", "1", "--checkpoint-every", "10", "--shards", "2"];

  it.each([
    ["the process that has started them", "SIGTERM", 143],
    ["one of them", "SIGUSR1", 0],
  ] as const)("saves and ends after the same step when %s is told to: %s", async (whom, signal, expected) => {
    const run = `stopped-${signal}`;
    const running = start(folder, "train", "acts.h5", ...often, "--out", run);
    await logged(run, 7, running);
    process.kill(whom === "one of them" ? (await ranksOf(run))[1]! : running.child.pid!, signal);
    const { code, out, err } = await running.ended;
    expect(code).toBe(expected);
    expect(err).not.toContain("sign of life");
    const steps = /^stopped\s+(\d+) steps?/m.exec(out)?.[1];
    expect((await checkpointsOf(path(run))).at(-1)).toBe(`step-${steps!.padStart(8, "0")}`);
    expect(await metricsOf(path(run))).toHaveLength(Number(steps));
  });

  it("keeps the loss scale of --wire fp16 in checkpoints and metrics, and resumes with the same bits", async () => {
    const words = ["train", "acts.h5", ...faulty, "--log-every", "1", "--checkpoint-every", "10", "--keep", "100"];
    await ended(saetta(folder, ...words, "--replicas", "2", "--wire", "fp16", "--out", "fp16"));
    const scales = (await metricsOf(path("fp16"))).map((line) => line.loss_scale);
    // Gradients of these rows fit.
    expect(new Set(scales)).toEqual(new Set([2 ** 16]));
    const [third, last] = [(await checkpointsOf(path("fp16")))[2]!, (await checkpointsOf(path("fp16"))).at(-1)!];
    const expected = await checkpointOf(path("fp16"), last);
    expect(expected.loss_scale).toEqual({ scale: 2 ** 16, fitting: scales.length - 1, overflowed: false });
    await cp(path("fp16"), path("fp16-again"), { recursive: true });
    for (const each of await checkpointsOf(path("fp16-again")))
      if (each > third) await rm(join(path("fp16-again"), "checkpoints", each), { recursive: true });
    await ended(saetta(folder, "resume", "fp16-again"));
    expect(await checkpointOf(path("fp16-again"), last)).toEqual(expected);
  });

  it("--wire is refused where it has no meaning", async () => {
    const { code, err } = await saetta(folder, "train", "acts.h5", "--wire", "f16");
    expect(code).toBe(2);
    expect(err).toContain('--wire must be f32, bf16 or fp16, but is "f16"');
  });

  let wholeRun: Promise<unknown> | undefined;
  const whole = () => {
    wholeRun ??= ended(saetta(folder, "train", "acts.h5", ...often, "--out", "whole"));
    return wholeRun;
  };

  // A rank that is stopped is waited for until the deadline; meanwhile the other run goes its way.
  (MOMENTS > 1 ? it : it.concurrent).each(
    Array.from({ length: MOMENTS }, (_, i) =>
      (["SIGKILL", "SIGSTOP"] as const).map((signal, j) => [signal, (i + j) % 2, i] as const),
    ).flat(),
  )(
    "ends when %s has come over rank %i (moment %i), with its name, and goes on with the same bits",
    async (signal, rank, moment) => {
      const name = `${signal}-${moment}`;
      const running = start(folder, { SAETTA_DEADLINE: `${DEADLINE}` }, "train", "acts.h5", ...often, "--out", name);
      await logged(name, 12, running);
      await sleep(MOMENTS > 1 ? Math.random() * 1000 : 0);
      const ranks = await ranksOf(name);
      process.kill(ranks[rank]!, signal);
      const { code, err } = await running.ended;
      expect(code).toBe(1);
      expect(err).toContain(`rank ${rank} (host ${hostname()}, process ${ranks[rank]})`);
      expect(err.match(/^saetta: rank/gm)).toHaveLength(1);
      // One that is stopped is missed within the deadline, by the clock of those who miss it.
      if (signal === "SIGSTOP") {
        const silent = /has not shown a sign of life for (\d+) s/.exec(err)?.[1];
        expect(Number(silent)).toBeLessThanOrEqual(DEADLINE);
      }
      expect(await ranksOf(name)).toEqual([]);

      // To the end, as a run to which nothing has happened.
      await ended(saetta(folder, "resume", name));
      await whole();
      expect(await metricsOf(path(name))).toEqual(await metricsOf(path("whole")));
      const last = (await checkpointsOf(path("whole"))).at(-1)!;
      expect(await checkpointOf(path(name), last)).toEqual(await checkpointOf(path("whole"), last));
    },
  );
});
