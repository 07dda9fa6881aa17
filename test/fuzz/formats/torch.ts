/**
 * Torch's zip archives of a pickle and storages: fixtures written by PyTorch, as activations and as
 * autoencoders.
 */

import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { crc32 } from "node:zlib";
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

interface Entry {
  /** Where its record in the central directory and its local header begin. */
  readonly central: number;
  readonly local: number;
  readonly data: number;
  readonly size: number;
}

/** What the central directory lists; of files of no more than 4 GiB. */
function entriesOf(bytes: Buffer): Entry[] {
  const end = bytes.lastIndexOf("PK\x05\x06", undefined, "latin1");
  const entries: Entry[] = [];
  let at = bytes.readUInt32LE(end + 16);
  while (bytes.readUInt32LE(at) === 0x02014b50) {
    const local = bytes.readUInt32LE(at + 42);
    const data = local + 30 + bytes.readUInt16LE(local + 26) + bytes.readUInt16LE(local + 28);
    entries.push({ central: at, local, data, size: bytes.readUInt32LE(at + 20) });
    at += 46 + bytes.readUInt16LE(at + 28) + bytes.readUInt16LE(at + 30) + bytes.readUInt16LE(at + 32);
  }
  return entries;
}

/**
 * Fields of the records, the opcodes of the pickle (the first entry), and where storages begin and
 * end.
 */
function boundaries(bytes: Buffer): number[] {
  const entries = entriesOf(bytes);
  const records = entries.flatMap(({ central, local }) => [
    ...[0, 14, 18, 22, 26, 28, 30].map((at) => local + at),
    ...[0, 16, 20, 24, 28, 42, 46].map((at) => central + at),
  ]);
  const pickle = entries.find(({ data }) => bytes[data] === 0x80);
  const opcodes = pickle === undefined ? [] : Array.from({ length: pickle.size }, (_, i) => pickle.data + i);
  return [...records, ...opcodes, ...entries.flatMap(({ data, size }) => [data, data + size]), bytes.length];
}

/** Checksums of what the entries hold now. */
function resealed(sample: Buffer, mutated: Buffer): void {
  for (const { central, local, data, size } of entriesOf(sample)) {
    const sum = crc32(mutated.subarray(data, data + size));
    mutated.writeUInt32LE(sum, central + 16);
    mutated.writeUInt32LE(sum, local + 14);
  }
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
