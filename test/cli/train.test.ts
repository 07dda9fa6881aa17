import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeActivations } from "../support/activations.ts";
import { CHILD_MS } from "../support/limits.ts";
import { learnableRows } from "../support/memory-source.ts";
import { checkpointsOf, metricsOf } from "../support/runs.ts";
import { CLI, saetta, start } from "./saetta.ts";

const D = 8;
const SMALL = ["--engine", "reference", "--latents", "24", "--k", "3", "--auxk", "6", "--batch", "32"];
let folder: string;
let made = 0;
const fresh = () => `run-${made++}`;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-cli-"));
  await writeActivations(join(folder, "acts.h5"), learnableRows(640, D, 12), [32, 20, D]);
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

describe("saetta train", () => {
  it("says what it does on stdout and exits 0", async () => {
    const { code, out, err } = await saetta(folder, "train", "acts.h5", ...SMALL, "--out", "runs/first");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const lines = out.trimEnd().split("\n");
    expect(lines[0]).toBe("run          runs/first");
    expect(lines.at(-1)).toBe("run          runs/first");
    expect(out).toContain("acts.h5: 640 x 8 f32");
    expect(out).toMatch(/^done +\d+ steps, \d+ rows in .* rows\/s\)$/m);
    expect(out).toMatch(/^result +loss [\d.]+, FVU [\d.]+, \d+ dead, held-out FVU [\d.]+, L0 [\d.]+$/m);
    expect(out).not.toMatch(/NaN|undefined|Infinity/);
  });

  it("with --json prints one JSON object and nothing else, also as resume", async () => {
    const run = fresh();
    const trained = await saetta(folder, "train", "acts.h5", ...SMALL, "--out", run, "--json", "--tokens", "160");
    const resumed = await saetta(folder, "resume", run, "--json", "--tokens", "320");
    for (const [{ code, out, err }, steps] of [
      [trained, 5],
      [resumed, 10],
    ] as const) {
      expect(code).toBe(0);
      // Nothing but notes, a line each.
      for (const line of err.split("\n")) expect(line).toMatch(/^($|saetta: note: )/);
      expect(JSON.parse(out)).toMatchObject({
        run,
        reason: "done",
        steps,
        tokens: steps * 32,
        report: { step: steps, loss: expect.any(Number) },
      });
      expect(out.trimEnd()).not.toContain("\n");
    }
  });

  it("takes options from --config, which flags beat", async () => {
    const run = fresh();
    await saetta(
      folder,
      "train",
      "acts.h5",
      ...SMALL,
      "--epochs",
      "0.5",
      "--lr",
      "0.01",
      "--seed",
      "7",
      "--out",
      run,
      "--json",
    );
    const more = ["--tokens", "64", "--expansion", "2", "--json"];
    const { code, out } = await saetta(folder, "train", "--config", `${run}/config.json`, ...more);
    expect(code).toBe(0);
    const { run: again } = JSON.parse(out) as { run: string };
    expect(again).toMatch(/^runs\/acts-\d{8}T\d{6}Z$/);
    const config = JSON.parse(await readFile(join(folder, again, "config.json"), "utf8")) as Record<string, unknown>;
    expect(config).toMatchObject({
      lr: 0.01,
      seed: 7,
      tokens: 64,
      latents: 16,
      k: 3,
      batch: 32,
      data: [join(folder, "acts.h5")],
    });
    expect(config).not.toHaveProperty("epochs");
  });

  it("goes on quietly when its reader goes away", async () => {
    const run = fresh();
    const script = `"${process.execPath}" "${CLI}" train acts.h5 ${SMALL.join(" ")} --out ${run} --epochs 3 | head -1; exit "\${PIPESTATUS[0]}"`;
    const { stdout, stderr } = await promisify(execFile)("bash", ["-c", script], { cwd: folder });
    expect(stdout).toBe(`run          ${run}\n`);
    expect(stderr).toBe("");
    const metrics = await metricsOf(join(folder, run));
    expect(await checkpointsOf(join(folder, run))).toContain(`step-${String(metrics.at(-1)!.step).padStart(8, "0")}`);
    expect(metrics.at(-1)!.epoch).toBeGreaterThan(2.5);
  });
});

/**
 * Resolves as soon as the process has a handler for the signal of this number; before, it would be
 * killed.
 */
async function hears(pid: number, signal: number): Promise<void> {
  for (;;) {
    const [, mask] = /^SigCgt:\s*(\w+)/m.exec(await readFile(`/proc/${pid}/status`, "utf8"))!;
    if ((BigInt(`0x${mask}`) >> BigInt(signal - 1)) & 1n) return;
  }
}

describe("signals", () => {
  it.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGUSR1", 0],
  ] as const)("%s finishes the step, saves a checkpoint and exits %i; resume goes on from it", async (signal, expected) => {
    const run = fresh();
    const running = start(folder, "train", "acts.h5", ...SMALL, "--out", run, "--epochs", "100000");
    await running.says("engine ");
    running.child.kill(signal);
    const { code, out, err } = await running.ended;
    expect(code).toBe(expected);
    expect(err).toMatch(new RegExp(`^\\nsaetta: ${signal}: finishing the step and saving a checkpoint[^\\n]*\\n$`));
    const [, steps] = /^stopped +([\d,]+) steps?,/m.exec(out)!;
    const step = Number(steps!.replaceAll(",", ""));
    expect(await checkpointsOf(join(folder, run))).toContain(`step-${String(step).padStart(8, "0")}`);
    if (signal !== "SIGINT") return;
    const resumed = await saetta(folder, "resume", run, "--tokens", String((step + 3) * 32), "--json");
    expect(JSON.parse(resumed.out)).toMatchObject({ reason: "done", steps: step + 3 });
  });

  // Node itself hears SIGUSR1 first, as a call of its debugger; each try sends it a little before
  // our code runs or a little after. A port of the system's choice: where the usual one is taken,
  // no debugger opens.
  it.skipIf(process.platform !== "linux").each(["train", "resume"])(
    "SIGUSR1 while Node starts %s is not lost",
    async (command) => {
      const run = fresh();
      const words = ["acts.h5", ...SMALL, "--out", run];
      if (command === "resume") await saetta(folder, "train", ...words, "--tokens", "32");
      for (let tries = 0, opened = false; tries < 20 && !opened; tries++) {
        const begin = command === "train" ? [...words.slice(0, -1), `${run}-${tries}`] : [run];
        const node = { NODE_OPTIONS: "--inspect-port=0" };
        const running = start(folder, node, command, ...begin, "--epochs", "100000");
        await hears(running.child.pid!, 10);
        running.child.kill("SIGUSR1");
        const { code, out, err } = await running.ended;
        expect({ code, err }).toEqual({ code: 0, err: expect.stringContaining("saetta: SIGUSR1: finishing the step") });
        expect(out).toMatch(/^stopped +\d/m);
        opened = err.includes("Debugger listening");
      }
    },
  );

  it("a second SIGINT ends at once, whatever is still being done", async () => {
    const endless = `import { catchSignals } from ${JSON.stringify(new URL("../../dist/commands/signals.js", import.meta.url).href)};
      catchSignals("working on"); setInterval(() => {}, 1000); process.stderr.write("ready");`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", endless], {
      stdio: ["ignore", "ignore", "pipe"],
      timeout: CHILD_MS,
      killSignal: "SIGKILL",
    });
    let err = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      err += text;
      if (err === "ready") child.kill("SIGINT");
      else if (err.endsWith("at once\n")) child.kill("SIGINT");
    });
    expect((await once(child, "close"))[0]).toBe(130);
    expect(err).toBe("ready\nsaetta: SIGINT: working on; Ctrl-C again ends at once\n");
  });
});
