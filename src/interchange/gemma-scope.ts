/**
 * Gemma Scope (https://huggingface.co/google/gemma-scope): layer_L/width_W/average_l0_N/params.npz
 * of W_enc [d,n], b_enc [n], W_dec [n,d], b_dec [d], threshold [n]. Gemma Scope 2
 * (https://huggingface.co/google/gemma-scope-2): SITE/layer_L_width_W_l0_SIZE with config.json and
 * params.safetensors of the same arrays, the matrices called w_enc and w_dec, and of some
 * transcoders affine_skip_connection [dIn,dOut]. JumpReLU; b_dec is not taken from the input.
 */

import { join, resolve } from "node:path";
import { autoencoderDims, transcoderDims } from "../sae/dims.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError } from "../util/errors.ts";
import { Fields, readJsonFile } from "../util/json.ts";
import { type ArrayFile, openArrays } from "./array-file.ts";
import type { Foreign, ForeignReader, Place, Told } from "./format.ts";
import {
  decoderWidth,
  encoderShape,
  type FourArrays,
  type Layout,
  openFourArrays,
  rulesOfFourArrays,
} from "./four-arrays.ts";
import { noK } from "./selection.ts";

export const GEMMA_SCOPE_WEIGHTS = "params.npz";
export const GEMMA_SCOPE_2_WEIGHTS = "params.safetensors";
const CONFIG = "config.json";
const SKIP = "affine_skip_connection";

const LAYOUT: Layout = {
  names: { encoder: "W_enc", encoderBias: "b_enc", decoder: "W_dec", decoderBias: "b_dec" },
  transposed: ["encoder"],
};
const LAYOUT_2: Layout = { ...LAYOUT, names: { ...LAYOUT.names, encoder: "w_enc", decoder: "w_dec" } };

interface Origin {
  readonly transcoder: boolean;
  readonly model: string | undefined;
  readonly tensor: string | undefined;
  readonly targetTensor: string | undefined;
}

interface Opened {
  readonly arrays: FourArrays;
  readonly origin: Origin;
}

async function opened(name: string, layout: Layout, { folder, names }: Place, told: Told): Promise<Opened> {
  const origin = names.has(CONFIG) && layout === LAYOUT_2 ? await stated(join(folder, CONFIG)) : fromPath(folder);
  const file = await openArrays(join(folder, name));
  return closedOnFailure(file, () => {
    noK(told, file.path);
    return { origin, arrays: arraysOf(file, layout, origin.transcoder) };
  });
}

function arraysOf(file: ArrayFile, layout: Layout, transcoder: boolean): FourArrays {
  const [n, d] = encoderShape(file, layout);
  const dOut = decoderWidth(file, layout);
  const hasSkip = file.names.has(SKIP);
  if (!transcoder && (hasSkip || dOut !== d)) {
    const what = hasSkip ? `has an array "${SKIP}"` : `reads ${d} numbers and writes ${dOut}`;
    throw new FormatError(`${what}, but nothing says that it is a transcoder`, { where: file.path });
  }
  return {
    ...{ file, dims: transcoder ? transcoderDims(d, n, dOut) : autoencoderDims(d, n), layout },
    selects: { kind: "threshold", array: "threshold" },
    subtract: false,
    skip: hasSkip ? { array: SKIP, transposed: true } : undefined,
    says: layout.names.encoder,
  };
}

/** What config.json of Gemma Scope 2 says. */
async function stated(where: string): Promise<Origin> {
  const config = new Fields(await readJsonFile(where), CONFIG, where);
  const text = (name: string): string | undefined => (config.has(name) ? config.string(name) : undefined);
  const architecture = text("architecture") ?? "jump_relu";
  if (architecture !== "jump_relu")
    throw new FormatError(`architecture "${architecture}" is not "jump_relu", which Saetta computes`, { where });
  const [tensor, target] = [text("hf_hook_point_in"), text("hf_hook_point_out")];
  const kind = text("type") ?? "";
  if (/crosscoder|clt|cross_layer/.test(kind))
    throw new FormatError(`type "${kind}" is not computed by Saetta (it computes autoencoders and transcoders)`, {
      where,
    });
  const transcoder = kind === "transcoder" || (tensor !== undefined && target !== undefined && tensor !== target);
  return { transcoder, model: text("model_name"), tensor, targetTensor: transcoder ? target : undefined };
}

/** Hooks of Gemma Scope by the end of a repository's name. */
const SITES: Readonly<Record<string, readonly [tensor: string, target?: string]>> = {
  res: ["hook_resid_post"],
  mlp: ["hook_mlp_out"],
  att: ["attn.hook_z"],
  transcoders: ["ln2.hook_normalized", "hook_mlp_out"],
};

/** What the names of repository and folders say: gemma-scope-2b-pt-res/layer_12/... */
function fromPath(folder: string): Origin {
  const path = resolve(folder);
  const repository = /gemma-scope-(\d+b)-(pt|it)-(res|mlp|att|transcoders)/.exec(path);
  const layer = /layer_(\d{1,3})/.exec(path.slice(repository?.index ?? 0));
  const transcoder = /transcoder/.test(path.slice(repository?.index ?? 0));
  if (repository === null) return { transcoder, model: undefined, tensor: undefined, targetTensor: undefined };
  const [, size, tuning, site] = repository as unknown as [string, string, string, string];
  const [tensor, target] = SITES[site]!;
  const hook = (name: string | undefined) =>
    name === undefined || layer === null ? undefined : `blocks.${layer[1]}.${name}`;
  const model = `google/gemma-2-${size}${tuning === "it" ? "-it" : ""}`;
  return { transcoder, model, tensor: hook(tensor), targetTensor: hook(target) };
}

function reader(format: "gemma_scope" | "gemma_scope_2", name: string, layout: Layout): ForeignReader {
  return {
    name: format,
    async open(place, told): Promise<Foreign> {
      const { arrays, origin } = await opened(name, layout, place, told);
      const { transcoder, ...about } = origin;
      const files = [...(place.names.has(CONFIG) && layout === LAYOUT_2 ? [CONFIG] : []), name];
      return openFourArrays(arrays, { format, files, ...about });
    },
    async rules(place, told) {
      return rulesOfFourArrays((await opened(name, layout, place, told)).arrays);
    },
  };
}

export const gemmaScope = reader("gemma_scope", GEMMA_SCOPE_WEIGHTS, LAYOUT);
export const gemmaScope2 = reader("gemma_scope_2", GEMMA_SCOPE_2_WEIGHTS, LAYOUT_2);
