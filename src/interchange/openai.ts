/**
 * OpenAI's sparse_autoencoder (https://github.com/openai/sparse_autoencoder, model.py): a torch file of pre_bias [d], latent_bias [n], encoder.weight [n,d], decoder.weight [d,n],
 * three buffers of statistics, `activation` and `activation_state_dict`. Its loader takes the activation "TopK" to mean that rows are layer-normalised. train.py writes the
 * arrays alone; that loader refuses such a file, which says neither k nor the activation.
 */

import { join } from "node:path";
import type { TorchValue } from "../formats/torch-pickle.ts";
import { itemsOf, openTorch, type TorchFile } from "../formats/torch-read.ts";
import { type TorchDict, type TorchPart, writeTorch } from "../formats/torch-write.ts";
import { bytesOf } from "../util/bytes.ts";
import { FormatError, UsageError } from "../util/errors.ts";
import { chosenK, describeForeign, rowNormalization, sayable, statedK } from "./description.ts";
import type { Exchanged, Floats, Foreign, ForeignFormat, Place, Told, Weight, WriteOptions } from "./format.ts";
import { rulesOf } from "./rules.ts";
import { as, matrixShape, torchFloats, torchTensor, transposed, unusedNote } from "./tensors.ts";

/** What an exported file is called. */
export const OPENAI_FILE = "autoencoder.pt";
const ARRAYS = ["pre_bias", "latent_bias", "encoder.weight", "decoder.weight"];
const STATISTICS = ["stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"];

/** Whether the names are those of such a file. */
export function isOpenai(items: ReadonlyMap<string, TorchValue>): boolean {
  return items.has("pre_bias") && items.has("latent_bias");
}

interface Opened {
  readonly file: TorchFile;
  readonly items: ReadonlyMap<string, TorchValue>;
  readonly d: number;
  readonly n: number;
  readonly k: number;
  readonly layerNorm: boolean;
  get(name: string): Promise<Floats>;
}

async function opened({ folder, file: named }: Place, told: Told): Promise<Opened> {
  const file = await openTorch(join(folder, named ?? OPENAI_FILE));
  try {
    const items = itemsOf(file.root);
    if (items === undefined) throw new FormatError("holds no dict of names", { where: file.path });
    const [n, d] = matrixShape("encoder.weight", torchTensor("encoder.weight", items.get("encoder.weight"), file.path).shape, file.path);
    const shapes: Readonly<Record<string, readonly number[]>> = {
      pre_bias: [d],
      latent_bias: [n],
      "encoder.weight": [n, d],
      "decoder.weight": [d, n],
    };
    const get = (name: string) => torchFloats(file, name, items.get(name), shapes[name]!, "encoder.weight");
    return { file, items, d, n, ...activationOf(items, told, file.path), get };
  } catch (thrown) {
    await file.close();
    throw thrown;
  }
}

function activationOf(items: ReadonlyMap<string, TorchValue>, told: Told, where: string): Pick<Opened, "k" | "layerNorm"> {
  const activation = items.get("activation");
  if (activation === undefined) {
    // Its loader would take a file with the buffers for one of ReLU; who gives a k knows better.
    if (told.k === undefined && STATISTICS.every((name) => items.has(name))) {
      throw new FormatError('names no activation, which OpenAI\'s loader takes for "ReLU"; Saetta computes TopK only', {
        where,
        mend: "if it is TopK, on rows as they are, say so with --k K",
      });
    }
    return { k: chosenK(undefined, told, where), layerNorm: false };
  }
  if (activation !== "TopK") {
    throw new FormatError(
      `activation ${JSON.stringify(String(activation)).slice(0, 60)} is not "TopK", the only one that Saetta computes`,
      { where },
    );
  }
  const state = itemsOf(items.get("activation_state_dict"));
  if (state === undefined) throw new FormatError('has no dict "activation_state_dict", which says k', { where });
  const post = state.get("postact_fn");
  if (post !== "ReLU")
    throw new FormatError(`postact_fn ${JSON.stringify(String(post)).slice(0, 60)} is not "ReLU", which Saetta computes`, { where });
  return { k: chosenK(statedK(state.get("k"), where), told, where), layerNorm: true };
}

async function open(place: Place, told: Told): Promise<Foreign> {
  const { file, items, d, n, k, layerNorm, get } = await opened(place, told);
  const read: Readonly<Record<Weight, () => Promise<Floats>>> = {
    encoder: () => get("encoder.weight"),
    latentBias: () => get("latent_bias"),
    decoder: async () => transposed(await get("decoder.weight"), d, n),
    preBias: () => get("pre_bias"),
  };
  try {
    const name = place.file ?? OPENAI_FILE;
    const claims = layerNorm ? [] : ["the file does not say its activation: taken for TopK, on rows as they are, as train.py trains"];
    const used = [...ARRAYS, ...STATISTICS, "activation", "activation_state_dict"];
    return {
      format: "openai",
      files: [name],
      description: describeForeign("openai", { d, n, k, layerNorm }, file.path),
      notes: [...claims, ...unusedNote(items.keys(), used, name)],
      read: (weight) => read[weight](),
      close: () => file.close(),
    };
  } catch (thrown) {
    await file.close();
    throw thrown;
  }
}

function write(sae: Exchanged, dtype: "f32" | "f64", options: WriteOptions): ReturnType<ForeignFormat["write"]> {
  const { d, n, k } = sae.description.shape;
  const title = "a file of OpenAI's loader";
  const plain = rowNormalization(sae.description) === "none";
  if (options.bare && !plain) {
    throw new UsageError("a bare state dict (--bare) cannot say how rows are normalised", {
      mend: "leave out --bare, or train with --normalize none or scale",
    });
  }
  if (!options.bare && plain) {
    throw new UsageError("OpenAI's loader layer-normalises the rows of every TopK autoencoder, which training did not", {
      mend: "use --bare to write the state dict as train.py does, which that loader refuses, or train with --normalize layer_norm",
    });
  }
  if (!options.bare) sayable(sae.description, title, true, options);
  const array = (name: Weight, shape: readonly number[], strides?: readonly number[]): TorchPart => ({
    dtype,
    shape,
    ...(strides && { strides }),
    bytes: async () => as(dtype, await sae.read(name)),
  });
  const statistic = (values: () => BigInt64Array | Float32Array, of: "i64" | "f32"): TorchPart => ({
    dtype: of,
    shape: [n],
    bytes: () => Promise.resolve(bytesOf(values())),
  });
  const dict: TorchDict = {
    pre_bias: array("preBias", [d]),
    latent_bias: array("latentBias", [n]),
    stats_last_nonzero: statistic(() => new BigInt64Array(n), "i64"),
    // What that class starts with: they are statistics of its own training.
    ...(options.bare
      ? {}
      : {
          latents_activation_frequency: statistic(() => new Float32Array(n).fill(1), "f32"),
          latents_mean_square: statistic(() => new Float32Array(n), "f32"),
        }),
    "encoder.weight": array("encoder", [n, d]),
    "decoder.weight": array("decoder", [d, n], [1, d]), // rows of the decoder are its columns, as they lie
    ...(options.bare ? {} : { activation: "TopK", activation_state_dict: { k, postact_fn: "ReLU" } }),
  };
  return [{ name: OPENAI_FILE, content: (put) => writeTorch(put, dict) }];
}

export const openai: ForeignFormat = {
  name: "openai",
  open,
  write,
  async rules(place, told) {
    const { file, d, n, k, layerNorm, get } = await opened(place, told);
    try {
      const [decoderBias, encoderBias, encoder, decoder] = [
        await get("pre_bias"),
        await get("latent_bias"),
        await get("encoder.weight"),
        await get("decoder.weight"),
      ];
      return rulesOf({
        ...{ d, n, k, layerNorm, encoderBias, decoderBias, subtract: true, byNorm: false },
        encoder: (i, j) => encoder[j * d + i]!,
        decoder: (i, j) => decoder[i * n + j]!,
      });
    } finally {
      await file.close();
    }
  },
};
