/**
 * Two cards as replicas and as shards, beside one: the first losses agree, the whole run does
 * within what selections that rounding decides otherwise make of it, and two runs of one grid have
 * the same bits. Needs two NVIDIA cards and NCCL; `SAETTA_GRID_ENGINE=cpu` runs the same over Open
 * MPI.
 */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeActivations } from "../support/activations.ts";
import { learnableRows } from "../support/memory-source.ts";

const ENGINE = process.env.SAETTA_GRID_ENGINE || "cuda";
const CLI = join(import.meta.dirname, "../../dist/cli.js");
const [STEPS, D] = [100, 64];

function cards(): number {
  const { status, stdout } = spawnSync("nvidia-smi", ["-L"], { encoding: "utf8" });
  return status === 0 ? stdout.split("\n").filter((line) => line.startsWith("GPU ")).length : 0;
}

const why = ENGINE === "cuda" && cards() < 2 ? `two NVIDIA cards are needed, and there are ${cards()}` : undefined;
if (why !== undefined) it.skip(`two cards as replicas and as shards: ${why}`, () => undefined);

interface Line {
  readonly loss: number;
  readonly l0: number;
}

describe.skipIf(why !== undefined)(`two ranks of the ${ENGINE} engine`, () => {
  let folder: string;
  let runs = 0;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "saetta-cards-"));
    await writeActivations(join(folder, "acts.h5"), learnableRows(4096, D, 40), [4096, D]);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  /** The lines of metrics.jsonl, and a hash of weights and moments. */
  function run(...grid: string[]): { readonly lines: readonly Line[]; readonly hash: string } {
    const out = join(folder, `run-${++runs}`);
    const shape = [
      "--latents",
      "512",
      "--k",
      "8",
      "--auxk",
      "32",
      "--batch",
      "256",
      "--tokens",
      String(256 * STEPS),
      "--dead-tokens",
      "2000",
    ];
    const rest = [
      "--lr",
      "1e-3",
      "--clip",
      "1",
      "--ema",
      "0.9",
      "--log-every",
      "1",
      "--checkpoint-every",
      "0",
      "--dtype",
      "f32",
      "--engine",
      ENGINE,
    ];
    const { status, stderr } = spawnSync(
      process.execPath,
      [CLI, "train", join(folder, "acts.h5"), ...shape, ...rest, ...grid, "--out", out],
      {
        encoding: "utf8",
      },
    );
    expect([
      status,
      stderr.split("\n").filter((line) => line.startsWith("saetta:") && !line.includes("note:")),
    ]).toEqual([0, []]);
    const text = readFileSync(join(out, "metrics.jsonl"), "utf8");
    const hash = createHash("sha256");
    for (const file of ["sae", "ema", "optimizer"]) {
      hash.update(
        readFileSync(join(out, "checkpoints", `step-${String(STEPS).padStart(8, "0")}`, `${file}.safetensors`)),
      );
    }
    return {
      lines: text
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as Line),
      hash: hash.digest("hex"),
    };
  }

  it.each([
    ["replicas", ["--replicas", "2"]],
    ["shards", ["--shards", "2"]],
  ])("%s", (_, grid) => {
    const [one, two, again] = [run(), run(...grid), run(...grid)];
    expect(two.lines).toHaveLength(STEPS);
    expect(again.hash).toBe(two.hash);
    const off = two.lines.map(({ loss }, i) => Math.abs(loss - one.lines[i]!.loss) / one.lines[i]!.loss);
    expect(off[0]).toBeLessThan(1e-6);
    expect(Math.max(...off)).toBeLessThan(0.02);
    expect(two.lines.every(({ l0 }, i) => Math.abs(l0 - one.lines[i]!.l0) < 0.1)).toBe(true);
  });
});
