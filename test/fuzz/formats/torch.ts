/**
 * Torch's zip archives of a pickle and storages: fixtures written by PyTorch, as activations and as
 * autoencoders.
 */

import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { openSource } from "../../../src/data/open.ts";
import { isRowDType } from "../../../src/data/source.ts";
import { openTorch } from "../../../src/formats/torch-read.ts";
import { isContiguous, TorchTensor } from "../../../src/formats/torch-tensor.ts";
import { arraysOf } from "../../../src/formats/torch-tree.ts";
import { type TorchPart, writeTorch } from "../../../src/formats/torch-write.ts";
import { findForeign, openForeign } from "../../../src/interchange/index.ts";
import { paramNames } from "../../../src/sae/description.ts";
import { bytesOf } from "../../../src/util/bytes.ts";
import { UsageError } from "../../../src/util/errors.ts";
import type { FuzzFormat, Sample } from "../format.ts";
import { all, readSource } from "./read.ts";
import { boundaries, resealed } from "./zip.ts";

const FIXTURES = [
  "src/formats/fixtures/torch-types.pt",
  "src/formats/fixtures/torch-tree.pt",
  "src/formats/fixtures/torch-list.pt",
  "test/interchange/fixtures/openai.pt",
  "test/interchange/fixtures/openai-views.pt",
  "test/interchange/fixtures/dictionary_learning/ae.pt",
  "test/interchange/fixtures/dictionary_learning-matryoshka/ae.pt",
  "test/interchange/fixtures/dictionary_learning-jumprelu/ae.pt",
];

async function samples(): Promise<Sample[]> {
  const fixtures = FIXTURES.map((path) => ({ name: path, file: "a.pt", bytes: readFileSync(path) }));
  return [...fixtures, { name: "Qwen-Scope", file: "layer0.sae.pt", bytes: await qwenScope() }];
}

/** 8 latents of rows of 3 numbers, as Qwen-Scope words them. */
async function qwenScope(): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  const part = (...shape: readonly number[]): TorchPart => {
    const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i));
    return { dtype: "f32", shape, bytes: () => Promise.resolve(bytesOf(values)) };
  };
  const parts = { W_enc: part(8, 3), b_enc: part(8), W_dec: part(3, 8), b_dec: part(3) };
  await writeTorch(async (bytes) => {
    chunks.push(Buffer.from(bytes));
  }, parts);
  return Buffer.concat(chunks);
}

/** Every tensor; returns whether they may be an autoencoder's. */
export async function readTensors(path: string): Promise<boolean> {
  const file = await openTorch(path);
  try {
    const values = file.root instanceof Map ? [...file.root.values()] : [file.root];
    for (const value of values) if (value instanceof TorchTensor) await file.read(value);
    const { root } = file;
    return root instanceof Map && ["encoder.weight", "W_enc"].some((name) => root.has(name));
  } finally {
    await file.close();
  }
}

/** The weights of the autoencoder in the file, where it is one. */
export async function readWeights(path: string): Promise<void> {
  const found = await findForeign(path, new Set([basename(path)]));
  if (found === undefined) return;
  // A k says that it is TopK, where names leave that open.
  const sae = await openForeign(found, { k: 4 }).catch((thrown: unknown) => {
    if (thrown instanceof UsageError) return openForeign(found, {});
    throw thrown;
  });
  try {
    for (const name of paramNames(sae.description)) await sae.read(name);
  } finally {
    await sae.close();
  }
}

/** All arrays that could be activations, as training reads them. */
async function readActivations(path: string): Promise<void> {
  const file = await openTorch(path);
  await file.close();
  const isOrdered = (value: unknown) => !(value instanceof TorchTensor) || isContiguous(value);
  const named = [...arraysOf(file.root)].filter(
    ([, { shape, tensors }]) =>
      (shape.length === 2 || shape.length === 3) && !shape.includes(0) && tensors.every(isOrdered),
  );
  const reads = named.slice(0, 8).map(([name, { dtype }]) => async () => {
    if (isRowDType(dtype)) await readSource(await openSource([path], { dataset: name }));
  });
  await all(...reads);
}

export const torch: FuzzFormat = {
  name: "torch",
  samples,
  boundaries,
  resealed,
  read: (path) =>
    all(
      async () => {
        if (await readTensors(path)) await readWeights(path);
      },
      () => readActivations(path),
    ),
};
