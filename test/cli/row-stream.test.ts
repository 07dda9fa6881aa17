import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeActivations } from "../support/activations.ts";
import { END, frameBytes, headerBytes } from "../support/frames.ts";
import { CHILD_MS } from "../support/limits.ts";
import { learnableRows } from "../support/memory-source.ts";
import { checkpointsOf, metricsOf } from "../support/runs.ts";
import { CLI, type Ended, saetta } from "./saetta.ts";

const D = 8;
const ROWS = 960;
const VALUES = learnableRows(ROWS, D, 12);
const SMALL = ["--engine", "reference", "--latents", "24", "--k", "3", "--auxk", "6", "--batch", "32"];
const HEADER = headerBytes({ width: D, dtype: "f32" });
const frames = (first: number, end: number): Buffer[] =>
  Array.from({ length: (end - first) / 48 }, (_, i) => {
    const begin = first + 48 * i;
    return frameBytes(48, { values: VALUES.subarray(D * begin, D * (begin + 48)) });
  });
let folder: string;
let made = 0;
const fresh = () => `run-${made++}`;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-stream-"));
  await writeActivations(join(folder, "acts.h5"), VALUES, [ROWS, D]);
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

interface Piped {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
}

function piped(...words: string[]): Piped {
  const options = { cwd: folder, timeout: CHILD_MS, killSignal: "SIGKILL" } as const;
  const child = spawn(process.execPath, [CLI, ...words], options);
  const said = { out: "", err: "" };
  child.stdout.on("data", (text) => {
    said.out += text;
  });
  child.stderr.on("data", (text) => {
    said.err += text;
  });
  child.stdin.on("error", () => undefined); // it closes its end when it is done
  return { child, ended: once(child, "close").then(([code]) => ({ code: code as number | null, ...said })) };
}

function fed(bytes: readonly Uint8Array[], ...words: string[]): Promise<Ended> {
  const { child, ended } = piped(...words);
  child.stdin!.end(Buffer.concat(bytes));
  return ended;
}

const weights = async (run: string) => {
  const [newest] = (await checkpointsOf(join(folder, run))).toReversed();
  return readFile(join(folder, run, "checkpoints", newest!, "sae.safetensors"));
};

describe("saetta train -", () => {
  it("has the bits of the same rows from a file, in their order", async () => {
    const [streamed, filed] = [fresh(), fresh()];
    const options = [...SMALL, "--holdout", "0", "--no-shuffle"];
    const bytes = [HEADER, ...frames(0, ROWS), END];
    const { code, out, err } = await fed(
      bytes,
      "train",
      "-",
      ...options,
      "--tokens",
      String(ROWS),
      "--buffer",
      String(ROWS),
      "--out",
      streamed,
    );
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toContain("rows of standard input: 960 x 8 f32");
    expect((await saetta(folder, "train", "acts.h5", ...options, "--out", filed)).code).toBe(0);
    expect(await weights(streamed)).toEqual(await weights(filed));
  });

  it("mixes the rows, holds contexts out, and is judged by them", async () => {
    const run = fresh();
    const header = headerBytes({ width: D, dtype: "f32", context: 16, rows: ROWS });
    const bytes = [header, ...frames(0, ROWS), END];
    const { code, out } = await fed(bytes, "train", "-", ...SMALL, "--holdout", "0.1", "--out", run);
    expect(code).toBe(0);
    expect(out).toMatch(/^result .*held-out FVU [\d.]+/m);
    expect((await metricsOf(join(folder, run))).at(-1)).toMatchObject({ holdout_fvu: expect.any(Number) });
  });

  it("that are cut off ends with a checkpoint, exit code 1 and one line; resume goes on with other rows", async () => {
    const run = fresh();
    const options = [...SMALL, "--tokens", String(ROWS), "--buffer", "64"];
    const bytes = Buffer.concat([HEADER, ...frames(0, 480)]);
    const { code, err } = await fed([bytes], "train", "-", ...options, "--holdout", "0", "--out", run);
    expect(code).toBe(1);
    expect(err).toContain(`standard input: the rows were cut off after byte ${bytes.length}, in the middle`);
    expect(err).toContain("the rows ended after 480 of 960, at step 15 of 30");
    expect((await checkpointsOf(join(folder, run))).at(-1)).toBe("step-00000015");

    const resumed = await fed([HEADER, ...frames(480, ROWS), END], "resume", run, "--data", "-");
    expect(resumed.code).toBe(0);
    expect(resumed.err).toContain("the run has taken 480 rows, which do not come again");
    expect((await checkpointsOf(join(folder, run))).at(-1)).toBe("step-00000030");
  });

  it("stops for a signal while it waits for rows", async () => {
    const run = fresh();
    const { child, ended } = piped("train", "-", ...SMALL, "--tokens", "10k", "--buffer", "64", "--out", run);
    child.stdin!.write(Buffer.concat([HEADER, ...frames(0, ROWS)]));
    const steps = async () =>
      existsSync(join(folder, run, "metrics.jsonl")) ? (await metricsOf(join(folder, run))).length : 0;
    await expect.poll(steps).toBeGreaterThan(0);
    child.kill("SIGINT");
    const { code } = await ended;
    expect(code).toBe(130);
    expect(await checkpointsOf(join(folder, run))).toHaveLength(1);
  });

  it("reads a socket, and lets the program go when the budget is spent", async () => {
    const run = fresh();
    const path = join(folder, "rows.sock");
    const closed: boolean[] = [];
    const server = createServer((socket) => {
      socket.on("close", () => closed.push(true));
      socket.on("error", () => undefined);
      socket.write(Buffer.concat([HEADER, ...frames(0, ROWS)])); // and no end
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const words = ["train", path, ...SMALL, "--tokens", "320", "--holdout", "0", "--buffer", "64", "--out", run];
    expect((await saetta(folder, ...words)).code).toBe(0);
    await expect.poll(() => closed).toEqual([true]);
    server.close();
  });

  it.each([
    [[Buffer.from("hello, these are no rows")], [], 1, "these are no rows in frames"],
    [[HEADER, END], [], 2, "nothing says how many rows to train on; give --tokens"],
    [[HEADER, END], ["--tokens", "64", "--epochs", "2"], 2, "--epochs needs files"],
    [[HEADER, END], ["--target", "y.h5", "--tokens", "64"], 2, "--target needs files"],
    [[HEADER, END], ["acts.h5", "--tokens", "64"], 2, "rows that come as a stream are the only data"],
  ])("%#: refuses what makes no sense", async (bytes, words, exit, message) => {
    const { code, err } = await fed(bytes, "train", "-", ...words, ...SMALL, "--out", fresh());
    expect(err).toContain(message);
    expect(code).toBe(exit);
  });
});

describe("saetta train - --keep-rows", () => {
  const options = [...SMALL, "--holdout", "0", "--no-shuffle", "--epochs", "1"];

  it("writes the rows as files that train to the same bits", async () => {
    const [streamed, filed, kept] = [fresh(), fresh(), fresh()];
    const header = headerBytes({ width: D, dtype: "f32", rows: ROWS });
    const words = ["train", "-", ...options, "--buffer", String(ROWS), "--keep-rows", kept, "--out", streamed];
    const { code, err } = await fed([header, ...frames(0, ROWS), END], ...words);
    expect({ code, err }).toEqual({ code: 0, err: `saetta: note: 960 rows kept in ${kept}, in 1 file\n` });
    expect((await saetta(folder, "train", kept, ...options, "--out", filed)).code).toBe(0);
    expect(await weights(streamed)).toEqual(await weights(filed));
    const again = await fed([header], "train", "-", ...options, "--keep-rows", kept, "--out", fresh());
    expect(again.err).toContain(`${kept}: the folder is not empty; name another`);
    expect(again.code).toBe(2);
  });

  it("writes int8, which every command reads", async () => {
    const [run, kept] = [fresh(), fresh()];
    const header = headerBytes({ width: D, dtype: "f32", rows: ROWS });
    const words = ["--keep-rows", kept, "--keep-dtype", "int8", "--out", run];
    expect((await fed([header, ...frames(0, ROWS), END], "train", "-", ...options, ...words)).code).toBe(0);
    expect((await saetta(folder, "train", kept, ...options, "--out", fresh())).code).toBe(0);
    for (const command of [
      ["eval", run, kept],
      ["report", run, "--data", kept, "--out", `${run}.html`],
      ["encode", run, kept, "--out", `${run}.npz`],
      ["inspect", kept],
      ["inspect", join(kept, "rows-000000.safetensors")],
    ]) {
      const { code, err } = await saetta(folder, ...command);
      expect({ command, code, err: code === 0 ? "" : err }).toEqual({ command, code: 0, err: "" });
    }
  });

  it("ends with a checkpoint and one line where a file cannot be written, and leaves no part of one", async () => {
    const [run, kept] = [fresh(), fresh()];
    const wide = 512;
    const values = learnableRows(128, wide, 12);
    const bytes = Buffer.concat([
      headerBytes({ width: wide, dtype: "f32", rows: 1024 }),
      ...Array.from({ length: 8 }, () => frameBytes(128, { values })),
      END,
    ]);
    // The kept rows are larger than the shell's limit of a file, a checkpoint is not.
    const words = [
      "train",
      "-",
      "--engine",
      "reference",
      "--latents",
      "2",
      "--k",
      "1",
      "--auxk",
      "0",
      "--batch",
      "128",
    ];
    const more = ["--buffer", "64", "--holdout", "0", "--checkpoint-every", "0", "--keep-rows", kept, "--out", run];
    const script = 'ulimit -f 1024 && exec "$0" "$@"';
    const child = spawn("bash", ["-c", script, process.execPath, CLI, ...words, ...more], { cwd: folder });
    let err = "";
    child.stderr.on("data", (text) => {
      err += text;
    });
    child.stdin.on("error", () => undefined);
    child.stdin.end(bytes);
    const [code] = await once(child, "close");
    expect(err).toMatch(new RegExp(`^saetta: ${kept}/rows-000000.safetensors: cannot be written \\(.*\\)$`, "m"));
    expect(code).toBe(1);
    expect(existsSync(join(folder, kept))).toBe(false);
    expect(await checkpointsOf(join(folder, run))).toHaveLength(1);
  });

  it.each([
    [["acts.h5", "--keep-rows", "kept"], "--keep-rows is for rows of a stream or of --model"],
    [["acts.h5", "--keep-dtype", "f16"], "--keep-dtype needs --keep-rows"],
    [["-", "--keep-rows", "kept", "--keep-dtype", "f64"], "--keep-dtype must be f16, bf16, f32 or int8"],
  ])("%#: refuses what makes no sense", async (words, message) => {
    const { code, err } = await saetta(folder, "train", ...words, ...SMALL, "--out", fresh());
    expect(err).toContain(message);
    expect(code).toBe(2);
  });
});
