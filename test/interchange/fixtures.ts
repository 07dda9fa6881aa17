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

/** Fixtures of published autoencoders and transcoders: their formats and paths. */
export const PUBLISHED: readonly (readonly [name: string, format: string, path: string])[] = [
  ["saelens-gated", "saelens", "saelens-gated"],
  ["saelens-gated-no-subtraction", "saelens", "saelens-gated-no-subtraction"],
  ["saelens-batchtopk-checkpoint", "saelens", "saelens-batchtopk-checkpoint"],
  ["saelens-3", "saelens", "saelens-3"],
  ["saelens-5-topk", "saelens", "saelens-5-topk"],
  ["dictionary_learning-AutoEncoder", "dictionary_learning", "dictionary_learning-AutoEncoder"],
  ["dictionary_learning-AutoEncoderNew", "dictionary_learning", "dictionary_learning-AutoEncoderNew"],
  ["dictionary_learning-GatedAutoEncoder", "dictionary_learning", "dictionary_learning-GatedAutoEncoder"],
  ["dictionary_learning-resumable", "dictionary_learning", "dictionary_learning-resumable"],
  ["goodfire", "goodfire", "goodfire.pth"],
  ["qwen-scope", "qwen_scope", "SAE-Res-W40-L0_4/layer3.sae.pt"],
  ["gemma-scope", "gemma_scope", "gemma-scope/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_7"],
  [
    "gemma-scope-transcoder",
    "gemma_scope",
    "gemma-scope-transcoder/gemma-scope-2b-pt-transcoders/layer_12/width_16k/average_l0_7",
  ],
  ["gemma-scope-2", "gemma_scope_2", "gemma-scope-2"],
  ["gemma-scope-2-transcoder", "gemma_scope_2", "gemma-scope-2-transcoder"],
  ["gemma-scope-2-affine", "gemma_scope_2", "gemma-scope-2-affine"],
  ["llama-scope", "llama_scope", "llama-scope"],
  ["llama-scope-topk", "llama_scope", "llama-scope-topk"],
  ["llama-scope-subtracted", "llama_scope", "llama-scope-subtracted"],
  ["llama-scope-r1", "llama_scope", "llama-scope-r1"],
  ["llamascopium-jumprelu", "llamascopium", "llamascopium-jumprelu"],
  ["llamascopium-topk", "llamascopium", "llamascopium-topk"],
  ["llamascopium-transcoder", "llamascopium", "llamascopium-transcoder"],
  ["llamascopium-folded", "llamascopium", "llamascopium-folded"],
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
