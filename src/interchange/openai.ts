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
import { openTorchArrays } from "./array-file.ts";
import { chosenK, inWords, noTranscoder, rowNormalization, sayable, statedK } from "./description.ts";
import type { Exchanged, Foreign, ForeignFormat, Place, Told, WriteOptions, Written } from "./format.ts";
import { encoderShape, type FourArrays, openFourArrays, rulesOfFourArrays } from "./four-arrays.ts";
import { lostWith, onlyTopk } from "./selection.ts";
import { arrayParts, type FullLayout } from "./torch-arrays.ts";

/** What an exported file is called. */
const OPENAI_FILE = "autoencoder.pt";
const LAYOUT: FullLayout = {
  names: {
    ...{ encoder: "encoder.weight", encoderBias: "latent_bias" },
    ...{ decoder: "decoder.weight", decoderBias: "pre_bias" },
  },
  transposed: ["decoder"],
};
const STATISTICS = ["stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"];

/** Whether the names are those of such a file. */
export function isOpenai(names: ReadonlySet<string>): boolean {
  return names.has("pre_bias") && names.has("latent_bias");
}

async function opened({ folder, file: name }: Place, told: Told): Promise<FourArrays> {
  const file = await openTorchArrays(join(folder, name ?? OPENAI_FILE));
  return closedOnFailure(file, () => {
    const [n, d] = encoderShape(file, LAYOUT);
    const { k, layerNorm } = activationOf(file.items, told, file.path);
    const selects = { kind: "topk" as const, k };
    return {
      ...{ file, dims: autoencoderDims(d, n), layout: LAYOUT, selects, subtract: true, layerNorm },
      says: LAYOUT.names.encoder,
    };
  });
}

function activationOf(
  items: ReadonlyMap<string, TorchValue>,
  told: Told,
  where: string,
): { readonly k: number; readonly layerNorm: boolean } {
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
  const arrays = await opened(place, told);
  return openFourArrays(arrays, {
    ...{ format: "openai", files: [place.file ?? OPENAI_FILE] },
    notes: arrays.layerNorm
      ? []
      : ["the file does not say its activation: taken for TopK, on rows as they are, as train.py trains"],
    understood: [...STATISTICS, "activation", "activation_state_dict"],
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
    return rulesOfFourArrays(await opened(place, told));
  },
};
