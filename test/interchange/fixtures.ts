/**
 * What make_fixtures.py wrote: autoencoders in the formats of others, 16 rows, and what PyTorch
 * made of them by each format's rules.
 */

import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openTorch } from "../../src/formats/torch-read.ts";
import { TorchTensor } from "../../src/formats/torch-tensor.ts";
import { type TorchDict, writeTorch } from "../../src/formats/torch-write.ts";
import type { Sae, SparseCodes } from "../../src/inference/sae.ts";
import { float32Of } from "../../src/util/bytes.ts";

export const FIXTURES = fileURLToPath(new URL("fixtures", import.meta.url));
export const { d, n, k } = JSON.parse(readFileSync(join(FIXTURES, "shape.json"), "utf8")) as {
  d: number;
  n: number;
  k: number;
};
export const ROWS_FILE = join(FIXTURES, "rows");
export const ROWS = floats(ROWS_FILE);

/** Every fixture: what it is, by its name, and the file or folder. */
export const ALL: readonly (readonly [name: string, path: string])[] = [
  ...["openai", "openai-strides", "openai-views", "openai-half", "openai-bfloat16", "openai-bare"].map(
    (name) => [name, `${name}.pt`] as const,
  ),
  ...["dictionary_learning", "sparsify", "sparsify-bfloat16"].map((name) => [name, name] as const),
  ...["saelens", "saelens-no-subtraction", "saelens-norms", "saelens-layer-norm", "saelens-half"].map(
    (name) => [name, name] as const,
  ),
];

const THRESHOLD = { architecture: "jumprelu", targetL0: 0 };

/** Fixtures in which a threshold decides, and the numbers of the autoencoder. */
export const THRESHOLDS: readonly (readonly [name: string, spec: object])[] = [
  ["saelens-jumprelu", THRESHOLD],
  ["saelens-jumprelu-no-subtraction", THRESHOLD],
  ["saelens-relu", THRESHOLD],
  ["dictionary_learning-batchtopk", { architecture: "batchtopk", k, auxk: 0 }],
  [
    "dictionary_learning-matryoshka",
    {
      ...{ architecture: "matryoshka", k, auxk: 0, selection: "batchtopk" },
      ...{ prefixes: [8, 20, 40], weights: [0.5, 0.25, 0.25] },
    },
  ],
  ["dictionary_learning-jumprelu", THRESHOLD],
];

/** Fixtures of transcoders: their paths, outputs, and whether there is a skip connection. */
export const TRANSCODERS: readonly (readonly [name: string, path: string, outputs: number, skip: boolean])[] = [
  ["saelens-transcoder", "saelens-transcoder", 7, false],
  ["saelens-skip-transcoder", "saelens-skip-transcoder", 7, true],
  ["saelens-jumprelu-transcoder", "saelens-jumprelu-transcoder", 7, false],
  ["saelens-jumprelu-skip-transcoder", "saelens-jumprelu-skip-transcoder", 7, true],
  ["sparsify-transcoder", "sparsify-transcoder/layers.3.mlp", d, false],
  ["sparsify-skip-transcoder", "sparsify-skip-transcoder/layers.3.mlp", d, true],
  ["sparsify-early-transcoder", "sparsify-early-transcoder/layers.3.mlp", d, false],
  ["circuit-tracer-jumprelu", "circuit-tracer-jumprelu", d, true],
  ["circuit-tracer-topk", "circuit-tracer-topk", d, false],
  ["circuit-tracer-relu", "circuit-tracer-relu", d, true],
];

export interface Expected {
  /** [B*n] and [B*d]. */
  readonly latents: Float32Array;
  readonly output: Float32Array;
}

export function expected(name: string, folder = FIXTURES): Expected {
  return { latents: floats(join(folder, `${name}.latents`)), output: floats(join(folder, `${name}.output`)) };
}

export function floats(path: string): Float32Array {
  return float32Of(new Uint8Array(readFileSync(path)));
}

/** The autoencoder's own answer for the rows. */
export async function answer(sae: Sae): Promise<Expected> {
  const codes = await sae.encode(ROWS);
  return { latents: dense(codes, sae.dims.n), output: await sae.decode(codes, ROWS) };
}

export function dense({ k: slots, latent, value }: SparseCodes, latents: number): Float32Array {
  const out = new Float32Array((latent.length / slots) * latents);
  for (const [slot, j] of latent.entries())
    if (value[slot]! > 0) out[Math.floor(slot / slots) * latents + j] = value[slot]!;
  return out;
}

/** Largest difference, over the largest value. */
export function difference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  const scale = b.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0) / scale;
}

export function differences(a: Expected, b: Expected): { latents: number; output: number } {
  return { latents: difference(a.latents, b.latents), output: difference(a.output, b.output) };
}

export type TorchItems = Record<string, TorchDict[string]>;

/** Writes a torch file of a fixture's items, changed. */
export async function changedTorch(
  fixture: string,
  path: string,
  change: (items: TorchItems) => TorchDict,
): Promise<void> {
  const file = await openTorch(join(FIXTURES, fixture));
  const dict = (value: unknown): TorchItems =>
    Object.fromEntries(
      [...(value as Map<string, unknown>)].map(([name, item]) => {
        if (!(item instanceof TorchTensor)) return [name, item instanceof Map ? dict(item) : (item as number | string)];
        return [name, { dtype: item.dtype, shape: item.shape, bytes: () => file.read(item) }];
      }),
    );
  const pieces: Uint8Array[] = [];
  await writeTorch(async (bytes) => void pieces.push(bytes), change(dict(file.root)));
  await file.close();
  await writeFile(path, Buffer.concat(pieces));
}
