/** An autoencoder on disk: its cfg.json and its weights, loaded and used. */

import { dirname } from "node:path";
import { createReferenceEngine } from "../../../src/engine/reference.ts";
import { loadSae } from "../../../src/inference/sae.ts";
import { descriptionJson } from "../../../src/sae/description.ts";
import { described } from "../../topk.ts";
import type { FuzzFormat, Sample } from "../format.ts";
import { jsonBoundaries, WHOLE_FILE } from "../format.ts";
import { safetensors, written } from "./safetensors.ts";

const [d, n] = [3, 8];
const CFG = Buffer.from(JSON.stringify(descriptionJson({ ...described({ d, n, k: 2, auxk: 1 }), saetta: undefined })));

function weights(dtype: "F32" | "F16" | "BF16"): Promise<Buffer> {
  const part = (name: string, shape: readonly number[]) => ({ name, dtype, shape }) as const;
  return written(
    [part("encoder.weight", [n, d]), part("encoder.bias", [n]), part("W_dec", [n, d]), part("b_dec", [d])],
    {},
  );
}

async function samples(): Promise<Sample[]> {
  const made = (["F32", "F16", "BF16"] as const).map(async (dtype): Promise<Sample> => {
    return { name: dtype, file: "sae.safetensors", bytes: await weights(dtype), beside: { "cfg.json": CFG } };
  });
  return Promise.all(made);
}

/** SAELens' JumpReLU. */
const SAELENS_CFG = Buffer.from(
  JSON.stringify({
    ...{ architecture: "jumprelu", d_in: d, d_sae: n, dtype: "float32", apply_b_dec_to_input: true },
    ...{ normalize_activations: "none", metadata: { sae_lens_version: "6.49.2", model_name: "m", hook_name: "h" } },
  }),
);

function saelensWeights(): Promise<Buffer> {
  const part = (name: string, shape: readonly number[]) => ({ name, dtype: "F32", shape }) as const;
  const core = [part("W_enc", [d, n]), part("b_enc", [n]), part("W_dec", [n, d]), part("b_dec", [d])];
  return written([...core, part("threshold", [n])], {});
}

/** A format of two files: a config that is JSON, and weights that are safetensors. */
interface Pair {
  readonly name: string;
  readonly config: string;
  readonly weights: string;
  readonly json: object;
  readonly parts: readonly (readonly [name: string, shape: readonly number[]])[];
}

const PAIRS: readonly Pair[] = [
  {
    ...{ name: "gemma-scope-2", config: "config.json", weights: "params.safetensors" },
    json: { hf_hook_point_in: "a", hf_hook_point_out: "b", architecture: "jump_relu", width: n, type: "transcoder" },
    parts: [
      ...([
        ["w_enc", [d, n]],
        ["w_dec", [n, d]],
        ["b_enc", [n]],
        ["b_dec", [d]],
        ["threshold", [n]],
      ] as const),
      ["affine_skip_connection", [d, d]],
    ],
  },
  {
    ...{ name: "llamascopium", config: "config.json", weights: "sae_weights.safetensors" },
    json: {
      ...{ sae_type: "sae", d_model: d, expansion_factor: n / d, act_fn: "jumprelu", norm_activation: "dataset-wise" },
      ...{ hook_point_in: "h", hook_point_out: "h", use_decoder_bias: true, sparsity_include_decoder_norm: true },
      dataset_average_activation_norm: { in: 2.5, out: 2.5 },
    },
    parts: [
      ["W_E", [d, n]],
      ["W_D", [n, d]],
      ["b_E", [n]],
      ["b_D", [d]],
      ["log_jumprelu_threshold", [n]],
    ],
  },
  {
    ...{ name: "saelens-gated", config: "cfg.json", weights: "sae_weights.safetensors" },
    json: { architecture: "gated", d_in: d, d_sae: n, metadata: { sae_lens_version: "6.0.0" } },
    parts: [
      ["W_enc", [d, n]],
      ["W_dec", [n, d]],
      ["b_gate", [n]],
      ["b_mag", [n]],
      ["r_mag", [n]],
      ["b_dec", [d]],
    ],
  },
];

function ofPair({ name, config, weights: file, json, parts }: Pair): FuzzFormat[] {
  const text = Buffer.from(JSON.stringify(json));
  const bytes = () =>
    written(
      parts.map(([part, shape]) => ({ name: part, dtype: "F32" as const, shape })),
      {},
    );
  return [
    {
      ...{ ...safetensors, name: `${name}-weights`, read },
      samples: async () => [{ name, file, bytes: await bytes(), beside: { [config]: text } }],
    },
    {
      ...{ name: `${name}-config`, json: WHOLE_FILE, read, boundaries: (all: Buffer) => jsonBoundaries(all) },
      samples: async () => [{ name, file: config, bytes: text, beside: { [file]: await bytes() } }],
    },
  ];
}

async function read(path: string): Promise<void> {
  const sae = await loadSae(dirname(path), { engine: createReferenceEngine() });
  await sae.encode(Float32Array.of(1, 2, 3));
  await sae.close();
}

export const sae: readonly FuzzFormat[] = [
  ...PAIRS.flatMap(ofPair),
  { ...safetensors, name: "sae-weights", samples, read },
  {
    name: "sae-cfg",
    samples: async () => [
      { name: "cfg", file: "cfg.json", bytes: CFG, beside: { "sae.safetensors": await weights("F32") } },
    ],
    boundaries: (bytes) => jsonBoundaries(bytes),
    json: WHOLE_FILE,
    read,
  },
  {
    ...{ ...safetensors, name: "saelens-weights", read },
    samples: async () => [
      {
        ...{ name: "jumprelu", file: "sae_weights.safetensors", bytes: await saelensWeights() },
        beside: { "cfg.json": SAELENS_CFG },
      },
    ],
  },
  {
    name: "saelens-cfg",
    samples: async () => [
      {
        ...{ name: "cfg", file: "cfg.json", bytes: SAELENS_CFG },
        beside: { "sae_weights.safetensors": await saelensWeights() },
      },
    ],
    boundaries: (bytes) => jsonBoundaries(bytes),
    json: WHOLE_FILE,
    read,
  },
];
