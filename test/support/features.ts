/** A small features file, made by hand. */

import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { featuresFile } from "../../src/explorer/api.ts";
import type { StoredLatent } from "../../src/explorer/shared/format.ts";
import { FeatureWriter } from "../../src/explorer/write.ts";
import type { FeatureSummary } from "../../src/run-files/feature-summary.ts";
import { bytesOf } from "../../src/util/bytes.ts";

const SUMMARY: FeatureSummary = {
  title: "runs/a",
  step: null,
  latents: 0,
  k: 1,
  width: 2,
  rows: 100,
  data: "memory",
  model: null,
  tensor: null,
  sequence: null,
  fvu: null,
  l0: 1,
  dead: 0,
  density: [],
  first: 0,
  text: true,
  logits: false,
};

/** Writes the features of a run: latent j fires j + 1 times, on the word `w<j>`. At most 32. */
export async function writeFeatures(run: string, latents: number): Promise<void> {
  const path = featuresFile(run);
  mkdirSync(dirname(path), { recursive: true });
  const writer = await FeatureWriter.create(path);
  const stored = (latent: number): StoredLatent => ({
    contexts: 1,
    histogram: { width: 1, counts: [1] },
    strongest: [{ value: 1, row: latent, text: latent, length: 1, at: 0, active: [0, 1] }],
    ranges: [],
    tokens: [],
    nearest: [],
    promoted: null,
    suppressed: null,
  });
  const numbers = Array.from({ length: latents }, (_, latent) => latent);
  await writer.json("latents/0", numbers.map(stored));
  await writer.json(
    "text/0",
    numbers.map((latent) => ` w${latent}`),
  );
  const firings = bytesOf(Uint32Array.from(numbers, (latent) => latent + 1));
  await writer.bytes("table", Buffer.concat([firings, bytesOf(new Float32Array(3 * latents).fill(1))]));
  await writer.json(
    "words",
    numbers.map((latent) => ({ on: [` w${latent}`], up: [] })),
  );
  await writer.finish({ ...SUMMARY, latents });
}
