/** Runs and autoencoders that tests ask about their own text. */

import { mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { saetta } from "../cli/saetta.ts";
import { documentsIn } from "./text.ts";

export const MODEL = resolve("examples/brown-gpt");
export const TENSOR = "/transformer/h.3/Add_1_output_0";

/** Trains runs/first in `folder` on a little of the example; writes acts.h5 there. */
export async function trainOnExample(folder: string): Promise<string> {
  writeFileSync(join(folder, "text.txt"), documentsIn("examples/brown.txt.gz", 30_000));
  mkdirSync(join(folder, "runs"));
  const harvest = ["harvest", "--model", MODEL, "--text", "text.txt", "--tensor", TENSOR, "--out", "acts.h5"];
  const train = ["train", "acts.h5", "--latents", "128", "--k", "8", "--batch", "256", "--epochs", "4"];
  for (const words of [harvest, [...train, "--out", "runs/first"]]) {
    const { code, err } = await saetta(folder, ...words);
    if (code !== 0) throw new Error(`saetta ${words.join(" ")}: ${err}`);
  }
  return join(folder, "runs", "first");
}

/**
 * `count` numbers between -1 and 1 that follow from their places, of 32 bits: those of
 * test/parity/make_steering_fixture.py.
 */
export function wave(count: number, phase: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: count }, (_, i) => {
    const value = Math.sin(i * 12.9898 + phase) * 43_758.5453;
    return value - Math.trunc(value);
  });
}
