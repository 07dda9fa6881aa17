/**
 * An autoencoder of which it is known what each latent does, and activations for it: a row points
 * along the decoder row of its token's latent.
 */

import { mkdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { createHdf5 } from "../../src/formats/hdf5-write.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { loadTokenizer } from "../../src/language-model/tokenizer.ts";
import { bytesOf } from "../../src/util/bytes.ts";
import { Rng } from "../../src/util/rng.ts";
import { documentsIn } from "./text.ts";

export const WIDTH = 256;
export const LATENTS = 96;
export const CONTEXT = 64;
const K = 3;
/** Latents that no row points along; they never fire. */
export const DEAD = [11, 95];
export const MODEL = resolve("examples/brown-gpt");

/** What would be seen if text were taken for markup. */
export const HOSTILE = `<script>window.hacked = 1</script><img src="http://evil.test/x" onerror="window.hacked = 2"> &lt;b&gt; "quotes' `;

/** Which latent a token is of. */
export function latentOf(token: number): number {
  const latent = token % LATENTS;
  return DEAD.includes(latent) ? latent - 1 : latent;
}

export interface Planted {
  readonly sae: string;
  readonly acts: string;
  /** Token of each row. */
  readonly tokens: Int32Array;
}

/**
 * Writes sae/ with `rows` [latents, width] as encoder and decoder, as other programs write it;
 * returns its path. `preBias` [width].
 */
export async function writeTiedSae(
  folder: string,
  width: number,
  k: number,
  rows: Float32Array,
  bias: Float32Array,
  preBias = new Float32Array(width),
): Promise<string> {
  const latents = bias.length;
  const part = (name: string, shape: number[], values: Float32Array) => ({
    name,
    dtype: "F32" as const,
    shape,
    bytes: async () => bytesOf(values),
  });
  const pieces: Uint8Array[] = [];
  await writeSafetensors(
    async (bytes) => void pieces.push(bytes),
    [
      part("encoder.weight", [latents, width], rows),
      part("encoder.bias", [latents], bias),
      part("W_dec", [latents, width], rows),
      part("b_dec", [width], preBias),
    ],
  );
  const sae = join(folder, "sae");
  await mkdir(sae);
  const cfg = { d_in: width, num_latents: latents, k, expansion_factor: 1 };
  await writeFile(join(sae, "cfg.json"), JSON.stringify(cfg));
  await writeFile(join(sae, "sae.safetensors"), Buffer.concat(pieces));
  return sae;
}

/**
 * Writes sae/ and acts.h5 [sequences, CONTEXT, WIDTH] into `folder`; every sequence is a document,
 * which begins with the start token.
 */
export async function plant(folder: string, sequences: number): Promise<Planted> {
  const rng = new Rng(17);
  const directions = orthonormal(rng);
  // A dead latent's decoder row has a cosine of 0.6 with that of the latent before it.
  for (const dead of DEAD)
    for (let i = dead * WIDTH; i < (dead + 1) * WIDTH; i++)
      directions[i] = 0.8 * directions[i]! + 0.6 * directions[i - WIDTH]!;
  const bias = Float32Array.from({ length: LATENTS }, (_, latent) => (DEAD.includes(latent) ? -1e6 : 0));
  const sae = await writeTiedSae(folder, WIDTH, K, directions, bias);

  const tokenizer = await loadTokenizer(join(MODEL, "tokenizer.json"));
  const text = `${HOSTILE.repeat(3)}${documentsIn("examples/brown.txt.gz", 60_000)}${HOSTILE.repeat(3)}`;
  const ids = tokenizer.encode(text);
  const tokens = new Int32Array(sequences * CONTEXT);
  for (let row = 0; row < tokens.length; row++) {
    const position = row % CONTEXT;
    tokens[row] = position === 0 ? tokenizer.startToken : ids[(row - Math.floor(row / CONTEXT) - 1) % ids.length]!;
  }
  // The last sequence is hostile too.
  tokens.set(ids.subarray(0, CONTEXT - 1), tokens.length - CONTEXT + 1);
  const values = new Float32Array(tokens.length * WIDTH);
  for (const [row, token] of tokens.entries()) {
    const latent = latentOf(token);
    const strength = 1 + 7 * rng.uniform();
    for (let i = 0; i < WIDTH; i++)
      values[row * WIDTH + i] = strength * directions[latent * WIDTH + i]! + 0.01 * rng.normal();
  }
  const acts = join(folder, "acts.h5");
  const file = await createHdf5(acts, {
    datasets: [
      { name: "hidden_states", dtype: "f32", shape: [sequences, CONTEXT, WIDTH] },
      { name: "tokens", dtype: "i32", shape: [sequences, CONTEXT] },
    ],
    attributes: { start_token: tokenizer.startToken, tokenizer: tokenizer.path, model: join(MODEL, "model.onnx") },
  });
  await file.write("hidden_states", 0, bytesOf(values));
  await file.write("tokens", 0, bytesOf(tokens));
  await file.close();
  return { sae, acts, tokens };
}

/** LATENTS rows of WIDTH, by Gram and Schmidt. */
function orthonormal(rng: Rng): Float32Array {
  const rows: number[][] = [];
  for (let latent = 0; latent < LATENTS; latent++) {
    const row = Array.from({ length: WIDTH }, () => rng.normal());
    for (const other of rows) {
      const along = row.reduce((sum, each, i) => sum + each * other[i]!, 0);
      for (let i = 0; i < WIDTH; i++) row[i]! -= along * other[i]!;
    }
    const size = Math.hypot(...row);
    rows.push(row.map((each) => each / size));
  }
  return Float32Array.from(rows.flat());
}
