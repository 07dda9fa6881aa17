/**
 * OpenAI's sparse_autoencoder (https://github.com/openai/sparse_autoencoder, model.py): a torch
 * file of pre_bias [d], latent_bias [n], encoder.weight [n,d], decoder.weight [d,n], three buffers
 * of statistics, `activation` and `activation_state_dict`. Its loader takes the activation "TopK"
 * to mean that rows are layer-normalised. train.py writes the arrays alone; that loader refuses
 * such a file, which says neither k nor the activation.
 */

import { join } from "node:path";
import type { TorchValue } from "../formats/torch-pickle.ts";
import { itemsOf } from "../formats/torch-read.ts";
import { type TorchDict, type TorchPart, writeTorch } from "../formats/torch-write.ts";
import { architectureCalled, computedInstead } from "../sae/architectures/index.ts";
import { autoencoderDims } from "../sae/dims.ts";
import { bytesOf } from "../util/bytes.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, UsageError } from "../util/errors.ts";
import {
  chosenK,
  describeForeign,
  inWords,
  noTranscoder,
  paramReader,
  rowNormalization,
  sayable,
  statedK,
} from "./description.ts";
import type { Exchanged, Foreign, ForeignFormat, Place, Told, WriteOptions, Written } from "./format.ts";
import { lostWith, onlyTopk, topkOf } from "./selection.ts";
import { unusedNote } from "./tensors.ts";
import { arrayParts, rulesOfArrays, type TorchArrays, type TorchLayout, withArrays } from "./torch-arrays.ts";

/** What an exported file is called. */
const OPENAI_FILE = "autoencoder.pt";
const NAMES = { preBias: "pre_bias", latentBias: "latent_bias", encoder: "encoder.weight", decoder: "decoder.weight" };
const LAYOUT: TorchLayout = { names: NAMES, transposed: ["decoder"] };
const STATISTICS = ["stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"];

/** Whether the names are those of such a file. */
export function isOpenai(items: ReadonlyMap<string, TorchValue>): boolean {
  return items.has("pre_bias") && items.has("latent_bias");
}

interface Opened extends TorchArrays {
  readonly k: number;
  readonly layerNorm: boolean;
}

function opened({ folder, file }: Place, told: Told): Promise<Opened> {
  const path = join(folder, file ?? OPENAI_FILE);
  return withArrays(
    path,
    () => LAYOUT,
    async (arrays) => ({ ...arrays, ...activationOf(arrays.items, told, path) }),
  );
}

function activationOf(
  items: ReadonlyMap<string, TorchValue>,
  told: Told,
  where: string,
): Pick<Opened, "k" | "layerNorm"> {
  const activation = items.get("activation");
  if (activation === undefined) {
    // Its loader would take a file with the buffers for one of ReLU; who gives a k knows better.
    if (told.k === undefined && STATISTICS.every((name) => items.has(name))) {
      throw new FormatError(
        'names no activation, which OpenAI\'s loader takes for "ReLU"; Saetta computes no autoencoder of plain ReLU',
        {
          where,
          mend: "if it is TopK, on rows as they are, say so with --k K",
        },
      );
    }
    return { k: chosenK(undefined, told, where), layerNorm: false };
  }
  if (typeof activation !== "string" || architectureCalled("openai", activation) === undefined)
    throw new FormatError(`activation ${inWords(activation)} ${computedInstead("openai")}`, { where });
  const state = itemsOf(items.get("activation_state_dict"));
  if (state === undefined) throw new FormatError('has no dict "activation_state_dict", which says k', { where });
  const post = state.get("postact_fn");
  if (post !== "ReLU")
    throw new FormatError(`postact_fn ${inWords(post)} is not "ReLU", which Saetta computes`, { where });
  return { k: chosenK(statedK(state.get("k"), where), told, where), layerNorm: true };
}

async function open(place: Place, told: Told): Promise<Foreign> {
  const { file, items, read, d, n, k, layerNorm } = await opened(place, told);
  return closedOnFailure(file, () => {
    const name = place.file ?? OPENAI_FILE;
    const claims = layerNorm
      ? []
      : ["the file does not say its activation: taken for TopK, on rows as they are, as train.py trains"];
    const used = [...Object.values(NAMES), ...STATISTICS, "activation", "activation_state_dict"];
    return {
      format: "openai",
      files: [name],
      description: describeForeign("openai", { dims: autoencoderDims(d, n), spec: topkOf(k), layerNorm }, file.path),
      notes: [...claims, ...unusedNote(items.keys(), used, name)],
      read: paramReader(read),
      close: () => file.close(),
    };
  });
}

function write(sae: Exchanged, dtype: "f32" | "f64", options: WriteOptions): Written {
  const k = onlyTopk(sae.description, "openai");
  noTranscoder(sae.description, "openai");
  const { n } = sae.description.dims;
  const title = "a file of OpenAI's loader";
  const plain = rowNormalization(sae.description) === "none";
  if (options.bare && !plain) {
    throw new UsageError("a bare state dict (--bare) cannot say how rows are normalised", {
      mend: "leave out --bare, or train with --normalize none or scale",
    });
  }
  if (!options.bare && plain) {
    throw new UsageError(
      "OpenAI's loader layer-normalises the rows of every TopK autoencoder, which training did not",
      {
        mend: "use --bare to write the state dict as train.py does, which that loader refuses, or train with --normalize layer_norm",
      },
    );
  }
  if (!options.bare) sayable(sae.description, title, true, options);
  const statistic = (values: () => BigInt64Array | Float32Array, of: "i64" | "f32"): TorchPart => ({
    dtype: of,
    shape: [n],
    bytes: () => Promise.resolve(bytesOf(values())),
  });
  const dict: TorchDict = {
    ...arrayParts(sae, dtype, LAYOUT),
    stats_last_nonzero: statistic(() => new BigInt64Array(n), "i64"),
    // What that class starts with: they are statistics of its own training.
    ...(options.bare
      ? {}
      : {
          latents_activation_frequency: statistic(() => new Float32Array(n).fill(1), "f32"),
          latents_mean_square: statistic(() => new Float32Array(n), "f32"),
        }),
    ...(options.bare ? {} : { activation: "TopK", activation_state_dict: { k, postact_fn: "ReLU" } }),
  };
  return {
    files: [{ name: OPENAI_FILE, content: (put) => writeTorch(put, dict) }],
    notes: lostWith(sae.description, title),
  };
}

export const openai: ForeignFormat = {
  name: "openai",
  open,
  write,
  async rules(place, told) {
    const arrays = await opened(place, told);
    const { k, layerNorm } = arrays;
    return rulesOfArrays(arrays, { selects: { kind: "topk", k }, layerNorm, subtract: true });
  },
};
