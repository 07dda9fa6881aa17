/**
 * The JSON files of autoencoders and runs: cfg.json, config.json, and a checkpoint's manifest.json
 * and state.json.
 */

import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { openCheckpoint } from "../../../src/checkpoint/load.ts";
import { configFromJson } from "../../../src/config.ts";
import { descriptionJson, parseDescription } from "../../../src/sae/description.ts";
import { readJsonFile, readTextFile } from "../../../src/util/json.ts";
import { described } from "../../topk.ts";
import { type FuzzFormat, jsonBoundaries, type Sample, WHOLE_FILE } from "../format.ts";
import { written } from "./safetensors.ts";

const shape = { d: 3, n: 8, k: 2, auxk: 1 };
const saetta = {
  version: "0.1.0",
  engine: "cpu",
  normalization: "scale",
  normalizationFactor: 0.5,
  emaDecay: 0.99,
  model: "m",
  tensor: "t",
  tokenizer: "k",
} as const;
const CFG = Buffer.from(JSON.stringify(descriptionJson({ ...described(shape), saetta })));
const STATE = Buffer.from(
  JSON.stringify({
    format_version: 1,
    step: 7,
    shape,
    real: "f32",
    computed: { version: "0.1.0" },
    progress: { position: 3, tokens: 21, metrics_bytes: 100 },
  }),
);
const CONFIG = {
  data: ["acts.h5"],
  preset: "default",
  latents: 64,
  k: 8,
  lr: 1e-3,
  mse_scale: "auto",
  exclude_tokens: [1, 2],
  holdout: 0.05,
  normalize: "none",
  engine: "auto",
  seed: 1,
  drop_last: true,
};

/**
 * A manifest with a right hash of itself, whatever it says: what is hashed goes up to the last
 * brace.
 */
export function signed(manifest: Uint8Array): Buffer {
  const end = manifest.at(-1) === "}".charCodeAt(0) ? -1 : manifest.length;
  const hashed = manifest.subarray(0, end);
  return Buffer.concat([
    hashed,
    Buffer.from(`,\n  "sha256": "${createHash("sha256").update(hashed).digest("hex")}"\n}\n`),
  ]);
}

async function checkpoint(): Promise<Sample[]> {
  const d = [8, 3];
  const f32 = (name: string, of: readonly number[]) => ({ name, dtype: "F32", shape: of }) as const;
  const weights = await written(
    [f32("encoder.weight", d), f32("encoder.bias", [8]), f32("W_dec", d), f32("b_dec", [3])],
    {},
  );
  const files: Record<string, Buffer> = {
    "cfg.json": CFG,
    "state.json": STATE,
    "sae.safetensors": weights,
    "optimizer.safetensors": weights,
  };
  const entries = Object.entries(files).map(([name, bytes]) => [
    name,
    { size: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") },
  ]);
  const manifest = Buffer.from(JSON.stringify({ format_version: 1, files: Object.fromEntries(entries) }));
  return [{ name: "manifest", file: "manifest.json", bytes: manifest, beside: files }];
}

const common = { boundaries: (bytes: Buffer) => jsonBoundaries(bytes), json: WHOLE_FILE };

export const json: readonly FuzzFormat[] = [
  {
    ...common,
    name: "cfg",
    samples: () => [
      { name: "own", file: "cfg.json", bytes: CFG },
      {
        name: "sparsify",
        file: "cfg.json",
        bytes: Buffer.from(JSON.stringify(descriptionJson({ ...described(shape), saetta: undefined }))),
      },
    ],
    read: async (path) => void parseDescription(await readJsonFile(path), path),
  },
  {
    ...common,
    name: "config",
    samples: () => [{ name: "run", file: "config.json", bytes: Buffer.from(JSON.stringify(CONFIG, undefined, 2)) }],
    read: async (path) => void configFromJson(await readTextFile(path), path),
  },
  {
    ...common,
    name: "manifest",
    samples: checkpoint,
    // Its hash would tell of every change: mutations are hashed anew, so that what they say is
    // read.
    read: async (path) => {
      await writeFile(path, signed(await readFile(path)));
      await openCheckpoint(dirname(path));
    },
  },
];
