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

async function read(path: string): Promise<void> {
  const sae = await loadSae(dirname(path), { engine: createReferenceEngine() });
  await sae.encode(Float32Array.of(1, 2, 3));
  await sae.close();
}

export const sae: readonly FuzzFormat[] = [
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
