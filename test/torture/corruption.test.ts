/**
 * A bit that flipped, or an end that is missing, anywhere in a checkpoint folder: it is refused,
 * the file is named, and the checkpoint before is used.
 */

import { open, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkpointsFolder } from "../../src/checkpoint/layout.ts";
import { INFERENCE_FILES, newestCheckpoint, openCheckpoint } from "../../src/checkpoint/load.ts";
import { verifyCheckpoint } from "../../src/checkpoint/verify.ts";
import { findSae } from "../../src/inference/weights.ts";
import { MANIFEST, stepName } from "../../src/run-files/names.ts";
import { verifyRun } from "../../src/train/verify.ts";
import { FormatError } from "../../src/util/errors.ts";
import type { Rng } from "../../src/util/rng.ts";
import { scratch } from "../support/scratch.ts";
import { cases } from "./harness.ts";
import { optionsOf, trainOrResume, writeData } from "./subject.ts";

const STEPS = 8;

let folder: string;
let run: string;
let newest: string;
let files: string[];
beforeAll(async () => {
  folder = await scratch("corruption");
  run = join(folder, "run");
  await trainOrResume(await writeData(folder), run, optionsOf(STEPS, 4, { normalize: "scale" }));
  newest = join(checkpointsFolder(run), stepName(STEPS));
  files = (await readdir(newest)).toSorted();
});
afterAll(() => rm(folder, { recursive: true }));

/** Damages one file of the newest checkpoint, looks at what is made of it, and mends it again. */
async function damaged(rng: Rng, damage: (path: string, bytes: Buffer) => Promise<void>): Promise<void> {
  const name = files[rng.below(files.length)]!;
  const path = join(newest, name);
  const bytes = await readFile(path);
  await damage(path, bytes);
  try {
    const refusal: unknown = await openCheckpoint(newest).catch((thrown: unknown) => thrown);
    expect(refusal, name).toBeInstanceOf(FormatError);
    expect((refusal as FormatError).message).toContain(`${path}: damaged: `);
    const { checkpoint, refusals } = await newestCheckpoint(run);
    expect([checkpoint?.step, refusals.map((each) => each.path)], name).toEqual([STEPS / 2, [newest]]);
    const { problem } = await verifyCheckpoint(newest);
    expect(problem, name).toBe((refusal as FormatError).message);
    // Inference reads no more than it needs; what it reads is whole.
    const readByInference = name === MANIFEST || (INFERENCE_FILES as readonly string[]).includes(name);
    if (readByInference) expect((await findSae(run)).step, name).toBe(STEPS / 2);
  } finally {
    await writeFile(path, bytes);
  }
}

describe("a damaged checkpoint", () => {
  it("is one of many files", async () => {
    expect(files).toEqual([
      "cfg.json",
      "ema.safetensors",
      "manifest.json",
      "optimizer.safetensors",
      "sae.safetensors",
      "state.json",
    ]);
    expect((await verifyRun(run)).checkpoints.map(({ step, problem }) => [step, problem])).toEqual([
      [STEPS, undefined],
      [STEPS / 2, undefined],
    ]);
  });

  it("is refused for any bit that flips", async () => {
    await cases("bit-flip", { short: 30, long: 1000 }, (rng) =>
      damaged(rng, async (path, bytes) => {
        const at = rng.below(bytes.length);
        const file = await open(path, "r+");
        await file.write(Uint8Array.of(bytes[at]! ^ (1 << rng.below(8))), 0, 1, at);
        await file.close();
      }),
    );
  });

  it("is refused wherever it is cut off", async () => {
    await cases("truncation", { short: 15, long: 200 }, (rng) =>
      damaged(rng, (path, bytes) => truncate(path, rng.below(bytes.length))),
    );
  });
});
