/**
 * circuit-tracer (https://github.com/safety-research/circuit-tracer), transcoders of one layer
 * each: config.yaml for all of them, and layer_N.safetensors with W_enc [n,d], b_enc [n], W_dec
 * [n,d], b_dec [d], W_skip [d,d] and, of JumpReLU, activation_function.threshold [n]. b_dec is not
 * taken from the input. The activation "topk" keeps the k highest, below 0 too; "relu" says itself;
 * any other is JumpReLU where the file has thresholds, else ReLU.
 */

import { join } from "node:path";
import { openSafetensors, type Safetensors } from "../formats/safetensors.ts";
import { transcoderDims } from "../sae/dims.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, UsageError } from "../util/errors.ts";
import { readTextFile } from "../util/json.ts";
import { chosenK, describeForeign, inWords, paramReader, sayable, statedK } from "./description.ts";
import type { Exchanged, Floats, Foreign, ForeignFormat, Place, Told, WriteOptions, Written } from "./format.ts";
import { type FileSelects, rulesOf } from "./rules.ts";
import { lostWith, noK, RELU_NOTE, THRESHOLDS, thresholdsIn, topkIn, topkOf } from "./selection.ts";
import { matrixShape, safetensorsFile, safetensorsFloats, unusedNote } from "./tensors.ts";
import { parseYaml, yamlLine } from "./yaml.ts";

export const CIRCUIT_TRACER_CONFIG = "config.yaml";
const MAX_CONFIG = 1024 * 1024;
const THRESHOLD = "activation_function.threshold";

/** Names of the files of layers, in their order. */
export function layerFiles(names: ReadonlySet<string>): string[] {
  const layers = [...names].filter((name) => /^layer_\d{1,6}\.safetensors$/.test(name));
  return layers.sort((a, b) => Number(/\d+/.exec(a)) - Number(/\d+/.exec(b)));
}

interface Opened {
  readonly file: Safetensors;
  readonly d: number;
  readonly n: number;
  readonly skip: boolean;
  readonly selects: { readonly kind: "topk"; readonly k: number } | { readonly kind: "threshold" | "relu" };
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
  const file = await openSafetensors(join(folder, name));
  return closedOnFailure(file, async () => {
    const [n, d] = matrixShape("W_enc", file.entry("W_enc").shape, file.path);
    const hasThreshold = file.tensors.has(THRESHOLD);
    const stated = config.get("k") ?? undefined;
    const selects = selectsOf(activation, hasThreshold, stated === undefined ? undefined : statedK(stated, where));
    if (hasThreshold && selects.kind !== "threshold")
      throw new FormatError(`has a tensor "${THRESHOLD}", which the activation "${activation}" has not`, {
        where: file.path,
      });
    const k = selects.kind === "topk" ? { kind: "topk" as const, k: chosenK(selects.k, told, where) } : undefined;
    if (k === undefined) noK(told, where);
    return {
      ...{ file, d, n, skip: file.tensors.has("W_skip"), model: text("model_name") },
      ...{ hook: text("feature_input_hook"), targetHook: text("feature_output_hook") },
      selects: k ?? (selects as { readonly kind: "threshold" | "relu" }),
    };
  });
}

function selectsOf(
  activation: string | undefined,
  hasThreshold: boolean,
  k: number | undefined,
): { readonly kind: "topk" | "threshold" | "relu"; readonly k?: number | undefined } {
  if (activation === "topk") return { kind: "topk", k };
  return { kind: activation !== "relu" && hasThreshold ? "threshold" : "relu" };
}

/** The tensors of a file, in its order. */
function shapesOf({
  d,
  n,
  skip,
  selects,
}: Pick<Opened, "d" | "n" | "skip" | "selects">): Readonly<Record<string, readonly number[]>> {
  return {
    ...{ W_enc: [n, d], W_dec: [n, d], b_enc: [n], b_dec: [d] },
    ...(selects.kind === "threshold" ? { [THRESHOLD]: [n] } : {}),
    ...(skip ? { W_skip: [d, d] } : {}),
  };
}

async function open(place: Place, told: Told): Promise<Foreign> {
  const there = await opened(place, told);
  const { file, d, n, skip, selects, model, hook, targetHook } = there;
  return closedOnFailure(file, async () => {
    const shapes = shapesOf(there);
    const get = (name: string): Promise<Floats> => safetensorsFloats(file, name, shapes[name]!);
    const threshold = () => (selects.kind === "relu" ? Promise.resolve(new Float32Array(n)) : get(THRESHOLD));
    if (selects.kind === "threshold") refuseNegative(await threshold(), file.path);
    const names = { encoder: "W_enc", latentBias: "b_enc", decoder: "W_dec", preBias: "b_dec" };
    const spec = selects.kind === "topk" ? topkOf(selects.k) : THRESHOLDS;
    const facts = { dims: transcoderDims(d, n, d), spec, skip, model, tensor: hook, targetTensor: targetHook };
    const notes = { topk: [NEGATIVE_NOTE], relu: [RELU_NOTE], threshold: [] }[selects.kind];
    return {
      format: "circuit_tracer",
      files: [CIRCUIT_TRACER_CONFIG, place.file ?? ""],
      description: describeForeign("circuit_tracer", facts, file.path),
      notes: [...notes, ...unusedNote(file.tensors.keys(), Object.keys(shapes), place.file ?? "")],
      read: paramReader((name) => get(names[name]), { threshold, skip: () => get("W_skip") }),
      close: () => file.close(),
    };
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
  const kind =
    k !== undefined ? { kind: "topk" as const, k } : { kind: isRelu ? ("relu" as const) : ("threshold" as const) };
  const read: Readonly<Record<string, () => Promise<Floats>>> = {
    W_enc: () => sae.read("encoder"),
    W_dec: () => sae.read("decoder"),
    b_enc: () => sae.read("latentBias"),
    b_dec: () => sae.read("preBias"),
    [THRESHOLD]: () => Promise.resolve(thresholds!),
    W_skip: () => sae.read("skip"),
  };
  const arrays = Object.entries(shapesOf({ d, n, skip, selects: kind })).map(([name, shape]) => ({
    ...{ name, shape },
    read: read[name]!,
  }));
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
    const there = await opened(place, told);
    const { file, d, n, selects } = there;
    try {
      const arrays: Record<string, Floats> = {};
      for (const [name, shape] of Object.entries(shapesOf(there)))
        arrays[name] = await safetensorsFloats(file, name, shape);
      const { W_enc, W_dec, b_enc, b_dec, W_skip } = arrays;
      const by: FileSelects =
        selects.kind === "topk"
          ? { ...selects, keepsNegative: true }
          : { kind: "threshold", thresholds: arrays[THRESHOLD] ?? 0 };
      return rulesOf({
        ...{ d, n, selects: by, subtract: false, encoderBias: b_enc!, decoderBias: b_dec! },
        encoder: (i, j) => W_enc![j * d + i]!,
        decoder: (i, j) => W_dec![j * d + i]!,
        skip: W_skip && ((i, o) => W_skip[o * d + i]!),
      });
    } finally {
      await file.close();
    }
  },
};
