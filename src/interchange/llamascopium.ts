/**
 * Llamascopium (https://github.com/OpenMOSS/Language-Model-SAEs) and Llama Scope, which it was
 * called before: config.json and sae_weights.safetensors, of the first files hyperparams.json and
 * checkpoints/final.safetensors. Arrays are encoder.weight [n,d], encoder.bias [n], decoder.weight
 * [d,n], decoder.bias [d]; since 2025 W_E [d,n], b_E, W_D [n,d], b_D.
 *
 * Rows are brought to a mean norm of sqrt(d) by dataset_average_activation_norm, which is in the
 * config or an array per hook; outputs are brought back. Thresholds are one number in the config or
 * the array log_jumprelu_threshold [n]. With sparsity_include_decoder_norm what is compared is
 * times the norms of the decoder's rows; one threshold for all is compared without.
 */

import { join } from "node:path";
import { autoencoderDims, transcoderDims } from "../sae/dims.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError } from "../util/errors.ts";
import { isFile } from "../util/folders.ts";
import { Fields, readJsonFile } from "../util/json.ts";
import { type ArrayFile, openArrays } from "./array-file.ts";
import { chosenK, statedK } from "./description.ts";
import type { Foreign, ForeignReader, Place, Told } from "./format.ts";
import {
  encoderShape,
  type FourArrays,
  type Layout,
  openFourArrays,
  rulesOfFourArrays,
  type Selects,
} from "./four-arrays.ts";
import { noK } from "./selection.ts";

export const HYPERPARAMETERS = "hyperparams.json";
const CONFIG = "config.json";
/** Where weights are, the first that is there. */
export const LLAMASCOPIUM_WEIGHTS = [
  "sae_weights.safetensors",
  "checkpoints/pruned.safetensors",
  "checkpoints/final.safetensors",
] as const;

const LAYERS: Layout = {
  names: {
    ...{ encoder: "encoder.weight", encoderBias: "encoder.bias" },
    ...{ decoder: "decoder.weight", decoderBias: "decoder.bias" },
  },
  transposed: ["decoder"],
};
const MATRICES: Layout = {
  names: { encoder: "W_E", encoderBias: "b_E", decoder: "W_D", decoderBias: "b_D" },
  transposed: ["encoder"],
};
const NORM = "dataset_average_activation_norm";
const LOG_THRESHOLDS = ["log_jumprelu_threshold", "activation_function.log_jumprelu_threshold"];

interface Opened {
  readonly arrays: FourArrays;
  readonly files: readonly [config: string, weights: string];
  readonly hookIn: string | undefined;
  readonly hookOut: string | undefined;
}

async function opened({ folder, names }: Place, told: Told): Promise<Opened> {
  const name = names.has(HYPERPARAMETERS) ? HYPERPARAMETERS : CONFIG;
  const where = join(folder, name);
  const config = new Fields(await readJsonFile(where), name, where);
  refuseOther(config, where);
  const [file, weights] = await openWeights(folder);
  return closedOnFailure(file, async () => {
    const layout = file.names.has(MATRICES.names.encoder) ? MATRICES : LAYERS;
    const text = (key: string): string | undefined => (config.has(key) ? config.string(key) : undefined);
    const hooks = [text("hook_point_in"), text("hook_point_out")] as const;
    const [n, d] = encoderShape(file, layout);
    const isTranscoder = hooks[0] !== hooks[1];
    const selects = selectsOf(config, file, told, where);
    const byNorm = config.boolean("sparsity_include_decoder_norm", true) && selects.kind !== "above";
    const hasBias = config.boolean("use_decoder_bias", true);
    return {
      files: [name, weights],
      ...{ hookIn: hooks[0], hookOut: isTranscoder ? hooks[1] : undefined },
      arrays: {
        ...{ file, selects, says: layout.names.encoder },
        layout: hasBias ? layout : { ...layout, names: { ...layout.names, decoderBias: undefined } },
        dims: isTranscoder ? transcoderDims(d, n, d) : autoencoderDims(d, n),
        subtract: hasBias && config.boolean("apply_decoder_bias_to_pre_encoder", false),
        scale: await scaleOf(config, file, hooks, d, where),
        byNorm: byNorm && selects.kind !== "relu" ? "selection" : undefined,
      },
    };
  });
}

async function openWeights(folder: string): Promise<[ArrayFile, string]> {
  const there = await Promise.all(LLAMASCOPIUM_WEIGHTS.map((name) => isFile(join(folder, name))));
  const name = LLAMASCOPIUM_WEIGHTS[Math.max(0, there.indexOf(true))]!;
  return [await openArrays(join(folder, name)), name];
}

function refuseOther(config: Fields, where: string): void {
  const type = config.has("sae_type") ? config.string("sae_type") : "sae";
  if (type !== "sae")
    throw new FormatError(`sae_type "${type}" is not computed by Saetta (it computes "sae")`, { where });
  if (config.boolean("use_glu_encoder", false))
    throw new FormatError("use_glu_encoder is true, which Saetta does not compute", { where });
}

function selectsOf(config: Fields, file: ArrayFile, told: Told, where: string): Selects {
  const activation = (config.has("act_fn") ? config.string("act_fn") : "relu").toLowerCase();
  if (activation === "topk") {
    const k = config.has("top_k") ? statedK(config.get("top_k"), where) : undefined;
    return { kind: "topk", k: chosenK(k, told, where) };
  }
  noK(told, where);
  if (activation === "relu") return { kind: "relu" };
  if (activation !== "jumprelu")
    throw new FormatError(
      `act_fn "${activation}" is not computed by Saetta one row at a time (it computes "relu", "jumprelu" and "topk")`,
      { where, ...(activation === "batchtopk" ? { mend: "convert it to jumprelu with Llamascopium" } : {}) },
    );
  const array = LOG_THRESHOLDS.find((name) => file.names.has(name));
  if (array !== undefined) return { kind: "threshold", array, isLog: true };
  const value = config.number("jump_relu_threshold");
  if (value >= 0) return { kind: "above", value };
  throw new FormatError(
    `jump_relu_threshold is ${value}, so that latents below 0 are active, which Saetta does not compute`,
    { where },
  );
}

/** What rows and outputs are times; undefined where nothing is. */
async function scaleOf(
  config: Fields,
  file: ArrayFile,
  hooks: readonly [string | undefined, string | undefined],
  d: number,
  where: string,
): Promise<FourArrays["scale"]> {
  const kind = config.has("norm_activation") ? config.string("norm_activation") : "dataset-wise";
  if (kind === "inference") return undefined;
  if (kind !== "dataset-wise")
    throw new FormatError(
      `norm_activation "${kind}" is not computed by Saetta (it computes "dataset-wise" and "inference")`,
      { where },
    );
  const stated = config.has(NORM) ? config.fields(NORM) : undefined;
  const norm = async (side: "in" | "out", hook: string | undefined): Promise<number> => {
    const array = `${NORM}.${hook}`;
    const shape = file.shapeOf(array);
    const key = stated?.has(side) === true ? side : (hook ?? side);
    const found = shape === undefined ? stated?.number(key) : (await file.floats(array, shape, "the file"))[0];
    if (found === undefined)
      throw new FormatError(`neither it nor the weights hold ${NORM} of ${hook ?? side}, which scales rows`, {
        where,
      });
    if (found > 0) return found;
    throw new FormatError(`${NORM} of ${hook ?? side} must be above 0, but is ${found}`, { where });
  };
  const [input, output] = [await norm("in", hooks[0]), await norm("out", hooks[1])];
  return { input: Math.sqrt(d) / input, output: Math.sqrt(d) / output };
}

function reader(format: "llama_scope" | "llamascopium"): ForeignReader {
  return {
    name: format,
    async open(place, told): Promise<Foreign> {
      const { arrays, files, hookIn, hookOut } = await opened(place, told);
      const norms = [...arrays.file.names].filter((name) => name.startsWith(`${NORM}.`));
      return openFourArrays(arrays, { format, files, understood: norms, tensor: hookIn, targetTensor: hookOut });
    },
    async rules(place, told) {
      return rulesOfFourArrays((await opened(place, told)).arrays);
    },
  };
}

export const llamaScope = reader("llama_scope");
export const llamascopium = reader("llamascopium");
