/**
 * circuit-tracer (https://github.com/safety-research/circuit-tracer), transcoders of one layer
 * each: config.yaml for all of them, and layer_N.safetensors with W_enc [n,d], b_enc [n], W_dec
 * [n,d], b_dec [d], W_skip [d,d] and, of JumpReLU, activation_function.threshold [n]. b_dec is not
 * taken from the input. The activation "topk" keeps the k highest, below 0 too; "relu" says itself;
 * any other is JumpReLU where the file has thresholds, else ReLU.
 */

import { join } from "node:path";
import { transcoderDims } from "../sae/dims.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, UsageError } from "../util/errors.ts";
import { readTextFile } from "../util/json.ts";
import { openArrays } from "./array-file.ts";
import { chosenK, inWords, sayable, statedK } from "./description.ts";
import type { Exchanged, Floats, Foreign, ForeignFormat, Place, Told, WriteOptions, Written } from "./format.ts";
import {
  encoderShape,
  type FourArrays,
  type Layout,
  openFourArrays,
  rulesOfFourArrays,
  type Selects,
} from "./four-arrays.ts";
import { lostWith, noK, thresholdsIn, topkIn } from "./selection.ts";
import { safetensorsFile } from "./tensors.ts";
import { parseYaml, yamlLine } from "./yaml.ts";

export const CIRCUIT_TRACER_CONFIG = "config.yaml";
const MAX_CONFIG = 1024 * 1024;
const THRESHOLD = "activation_function.threshold";

/** Names of the files of layers, in their order. */
export function layerFiles(names: ReadonlySet<string>): string[] {
  const layers = [...names].filter((name) => /^layer_\d{1,6}\.safetensors$/.test(name));
  return layers.sort((a, b) => Number(/\d+/.exec(a)) - Number(/\d+/.exec(b)));
}

const LAYOUT: Layout = {
  names: { encoder: "W_enc", encoderBias: "b_enc", decoder: "W_dec", decoderBias: "b_dec" },
  transposed: [],
};

interface Opened {
  readonly arrays: FourArrays;
  readonly model: string | undefined;
  readonly hook: string | undefined;
  readonly targetHook: string | undefined;
}

async function opened({ folder, file: name = "" }: Place, told: Told): Promise<Opened> {
  const where = join(folder, CIRCUIT_TRACER_CONFIG);
  const config = parseYaml(await readTextFile(where, MAX_CONFIG), where);
  const text = (key: string): string | undefined => {
    const value = config.get(key) ?? undefined;
    if (value === undefined || typeof value === "string") return value;
    throw new FormatError(`${key} must be text, but is ${inWords(value)}`, { where });
  };
  const kind = text("model_kind");
  if (kind !== "transcoder_set")
    throw new FormatError(`model_kind ${inWords(kind)} is not "transcoder_set", which Saetta computes`, { where });
  const activation = text("activation");
  const stated = config.get("k") ?? undefined;
  const k = stated === undefined ? undefined : statedK(stated, where);
  const file = await openArrays(join(folder, name));
  return closedOnFailure(file, () => {
    const [n, d] = encoderShape(file, LAYOUT);
    const hasThreshold = file.names.has(THRESHOLD);
    if (hasThreshold && (activation === "topk" || activation === "relu"))
      throw new FormatError(`has a tensor "${THRESHOLD}", which the activation "${activation}" has not`, {
        where: file.path,
      });
    if (activation !== "topk") noK(told, where);
    const selects: Selects =
      activation === "topk"
        ? { kind: "topk", k: chosenK(k, told, where), keepsNegative: true }
        : hasThreshold
          ? { kind: "threshold", array: THRESHOLD }
          : { kind: "relu" };
    return {
      arrays: {
        ...{ file, dims: transcoderDims(d, n, d), layout: LAYOUT, selects, subtract: false, says: "W_enc" },
        skip: file.names.has("W_skip") ? { array: "W_skip" } : undefined,
      },
      ...{ model: text("model_name"), hook: text("feature_input_hook"), targetHook: text("feature_output_hook") },
    };
  });
}

async function open(place: Place, told: Told): Promise<Foreign> {
  const { arrays, model, hook, targetHook } = await opened(place, told);
  const { file, dims, selects } = arrays;
  return closedOnFailure(file, async () => {
    const foreign = await openFourArrays(arrays, {
      ...{ format: "circuit_tracer", files: [CIRCUIT_TRACER_CONFIG, place.file ?? ""] },
      ...{ model, tensor: hook, targetTensor: targetHook, notes: selects.kind === "topk" ? [NEGATIVE_NOTE] : [] },
    });
    if (selects.kind === "threshold") refuseNegative(await file.floats(THRESHOLD, [dims.n], arrays.says), file.path);
    return foreign;
  });
}

const NEGATIVE_NOTE =
  "circuit-tracer keeps latents below 0 where they are among the k highest of a row; Saetta has them off";

/** With a threshold below 0 latents below 0 would be active. */
function refuseNegative(thresholds: Floats, where: string): void {
  const j = thresholds.findIndex((value) => value < 0);
  if (j < 0) return;
  throw new FormatError(
    `the threshold of latent ${j} is below 0, so that latents below 0 are active, which Saetta does not compute`,
    { where },
  );
}

async function write(sae: Exchanged, dtype: "f32" | "f64", options: WriteOptions): Promise<Written> {
  const { description } = sae;
  const { dims, skip = false, saetta } = description;
  const { dIn: d, n, dOut, untied = false } = dims;
  sayable(description, "circuit_tracer", false, options);
  if (!untied || dOut !== d) {
    const what = untied ? `as wide as their inputs; this one reads ${d} and writes ${dOut}` : "not autoencoders";
    throw new UsageError(`circuit_tracer has transcoders, ${what}`, { mend: "use --format saelens" });
  }
  const hooks = [options.hook ?? saetta?.tensor, options.targetHook ?? saetta?.targetTensor];
  const model = options.model ?? saetta?.model;
  const [input, output] = hooks;
  if (input === undefined || output === undefined || model === undefined)
    throw new UsageError("config.yaml of circuit_tracer needs the names of the model and of both hooks", {
      mend: "give --model, --hook and --target-hook",
    });
  const layer = options.layer ?? layerIn(output) ?? layerIn(input);
  if (layer === undefined)
    throw new UsageError(`circuit_tracer names files after layers, and the hook ${input} has no number`, {
      mend: "give --layer N",
    });
  const k = topkIn(description);
  const thresholds = k === undefined ? (await thresholdsIn(sae)).map((value) => Math.max(0, value)) : undefined;
  const isRelu = thresholds?.every((value) => value === 0) ?? false;
  const config = [
    yamlLine("model_kind", "transcoder_set"),
    yamlLine("model_name", model),
    yamlLine("feature_input_hook", withoutLayer(input)),
    yamlLine("feature_output_hook", withoutLayer(output)),
    yamlLine("scan", model),
    yamlLine("activation", k !== undefined ? "topk" : isRelu ? "relu" : "jumprelu"),
    ...(k === undefined ? [] : [yamlLine("k", k)]),
  ];
  const array = (name: string, shape: readonly number[], read: () => Promise<Floats>) => ({ name, shape, read });
  const arrays = [
    array("W_enc", [n, d], () => sae.read("encoder")),
    array("W_dec", [n, d], () => sae.read("decoder")),
    array("b_enc", [n], () => sae.read("latentBias")),
    array("b_dec", [d], () => sae.read("preBias")),
    ...(thresholds === undefined || isRelu ? [] : [array(THRESHOLD, [n], () => Promise.resolve(thresholds))]),
    ...(skip ? [array("W_skip", [d, d], () => sae.read("skip"))] : []),
  ];
  return {
    files: [
      { name: CIRCUIT_TRACER_CONFIG, content: (put) => put(new TextEncoder().encode(config.join(""))) },
      safetensorsFile(`layer_${layer}.safetensors`, dtype, arrays),
    ],
    notes: [
      "circuit-tracer reads layers from 0 on without a gap: put the files of the other layers into the folder",
      ...(k === undefined ? [] : [NEGATIVE_NOTE]),
      ...lostWith(description, "circuit_tracer"),
    ],
  };
}

/** The 8 of blocks.8.hook_mlp_out, of /h.8/Add or of layers.8.mlp. */
function layerIn(hook: string): number | undefined {
  const found = /(?:^|[./_])(\d{1,6})(?=$|[./_])/.exec(hook);
  return found === null ? undefined : Number(found[1]);
}

/** Names of hooks are given without the block, as all layers share them. */
function withoutLayer(hook: string): string {
  return hook.replace(/^blocks\.\d+\./, "");
}

export const circuitTracer: ForeignFormat = {
  name: "circuit_tracer",
  open,
  write,
  async rules(place, told) {
    return rulesOfFourArrays((await opened(place, told)).arrays);
  },
};
