/**
 * SAELens (https://github.com/decoderesearch/SAELens), version 6: cfg.json and
 * sae_weights.safetensors with W_enc [dIn,n], b_enc [n], W_dec [n,dOut], b_dec [dOut], `threshold`
 * [n] of JumpReLU and W_skip [dOut,dIn] of a transcoder. BatchTopK and Matryoshka are saved as
 * JumpReLU there, too. Of files of earlier versions those that say topk or relu as an activation
 * function.
 */

import { join } from "node:path";
import { openSafetensors, type Safetensors } from "../formats/safetensors.ts";
import { autoencoderDims, type Dims, transcoderDims } from "../sae/dims.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, UsageError } from "../util/errors.ts";
import { Fields, type JsonObject, readJsonFile } from "../util/json.ts";
import { chosenK, describeForeign, paramReader, sayable, statedK } from "./description.ts";
import type { Exchanged, Floats, Foreign, ForeignFormat, Place, Told, WriteOptions, Written } from "./format.ts";
import { rulesOf } from "./rules.ts";
import { lostWith, noK, RELU_NOTE, THRESHOLDS, thresholdsIn, topkIn, topkOf } from "./selection.ts";
import {
  jsonFile,
  plusProduct,
  rowNorms,
  safetensorsFile,
  safetensorsFloats,
  timesRows,
  transposed,
  unusedNote,
} from "./tensors.ts";

const CFG = "cfg.json";
export const SAELENS_WEIGHTS = "sae_weights.safetensors";

/** What an architecture of SAELens computes. */
interface Kind {
  readonly selects: "topk" | "threshold" | "relu";
  readonly transcoder: boolean;
  readonly skip: boolean;
}

const KINDS: Readonly<Record<string, Kind>> = {
  topk: { selects: "topk", transcoder: false, skip: false },
  jumprelu: { selects: "threshold", transcoder: false, skip: false },
  standard: { selects: "relu", transcoder: false, skip: false },
  transcoder: { selects: "relu", transcoder: true, skip: false },
  skip_transcoder: { selects: "relu", transcoder: true, skip: true },
  jumprelu_transcoder: { selects: "threshold", transcoder: true, skip: false },
  jumprelu_skip_transcoder: { selects: "threshold", transcoder: true, skip: true },
};

interface Cfg extends Kind {
  readonly architecture: string;
  readonly dims: Dims;
  /** Where the k highest of a row are selected. */
  readonly k: number | undefined;
  readonly subtract: boolean;
  readonly layerNorm: boolean;
  readonly byNorm: boolean;
  readonly model: string | undefined;
  readonly hook: string | undefined;
  readonly targetHook: string | undefined;
}

async function readCfg(folder: string, told: Told): Promise<Cfg> {
  const where = join(folder, CFG);
  const cfg = new Fields(await readJsonFile(where), CFG, where);
  const { architecture, kind } = kindOf(cfg, where);
  if (cfg.boolean("finetuning_scaling_factor", false))
    throw new FormatError("finetuning_scaling_factor is not computed by Saetta", { where });
  const layerNorm = isLayerNorm(cfg, where);
  const subtract = cfg.boolean("apply_b_dec_to_input", !kind.transcoder);
  if (kind.transcoder && (subtract || layerNorm)) {
    const said = subtract ? "apply_b_dec_to_input is true" : 'normalize_activations is "layer_norm"';
    throw new FormatError(`${said}, which means nothing for a transcoder`, { where });
  }
  const about = cfg.has("metadata") ? cfg.fields("metadata") : cfg;
  const text = (name: string): string | undefined => (about.has(name) ? about.string(name) : undefined);
  const [d, n] = [cfg.integer("d_in", 1), cfg.integer("d_sae", 1)];
  return {
    ...kind,
    architecture,
    dims: kind.transcoder ? transcoderDims(d, n, cfg.integer("d_out", 1)) : autoencoderDims(d, n),
    k: kOf(cfg, kind, told, where),
    subtract,
    layerNorm,
    // Of the others SAELens' loader does not look at it.
    byNorm: kind.selects === "topk" && cfg.boolean("rescale_acts_by_decoder_norm", false),
    model: text("model_name"),
    hook: text("hook_name"),
    targetHook: kind.transcoder ? text("hook_name_out") : undefined,
  };
}

/** "standard" has its activation function in another key, which earlier versions had for all. */
function kindOf(cfg: Fields, where: string): { readonly architecture: string; readonly kind: Kind } {
  const word = (name: string, byDefault: string): string => (cfg.has(name) ? cfg.string(name) : byDefault);
  const stated = word("architecture", "standard");
  const activation = word("activation_fn", word("activation_fn_str", "relu"));
  const architecture = stated === "standard" && activation === "topk" ? "topk" : stated;
  const kind = Object.hasOwn(KINDS, architecture) ? KINDS[architecture] : undefined;
  const known = architecture === "topk" || activation === "relu";
  if (kind !== undefined && known) return { architecture, kind };
  const [key, said] = kind === undefined ? ["architecture", architecture] : ["activation", activation];
  const words = Object.keys(KINDS).map((each) => JSON.stringify(each));
  throw new FormatError(`${key} "${said}" is not computed by Saetta (it computes ${words.join(", ")} with relu)`, {
    where,
  });
}

function kOf(cfg: Fields, { selects }: Kind, told: Told, where: string): number | undefined {
  if (selects !== "topk") {
    noK(told, where);
    return undefined;
  }
  const arguments_ = cfg.has("activation_fn_kwargs") ? cfg.fields("activation_fn_kwargs").get("k") : undefined;
  const k = cfg.has("k") ? cfg.get("k") : arguments_;
  return chosenK(k === undefined ? undefined : statedK(k, where), told, where);
}

function isLayerNorm(cfg: Fields, where: string): boolean {
  const normalization = cfg.get("normalize_activations") === true ? "expected_average_only_in" : normalizationWord(cfg);
  if (normalization === "expected_average_only_in") {
    throw new FormatError("rows are to be scaled by a factor (expected_average_only_in) that the file does not hold", {
      where,
      mend: "fold it with fold_activation_norm_scaling_factor and save again",
    });
  }
  if (normalization !== "none" && normalization !== "layer_norm") {
    throw new FormatError(`normalize_activations "${normalization}" is not computed by Saetta`, { where });
  }
  return normalization === "layer_norm";
}

function normalizationWord(cfg: Fields): string {
  const value = cfg.get("normalize_activations");
  return value === undefined || value === null || value === false ? "none" : cfg.string("normalize_activations");
}

/** Tensors that an architecture may have next to the four of all. */
const MORE = ["threshold", "W_skip", "b_gate", "b_mag", "r_mag"];

async function opened(place: Place, told: Told): Promise<{ readonly cfg: Cfg; readonly file: Safetensors }> {
  const cfg = await readCfg(place.folder, told);
  const file = await openSafetensors(join(place.folder, SAELENS_WEIGHTS));
  // Tensors of other architectures under a cfg.json of this one.
  const shapes = shapesOf(cfg);
  const other = MORE.find((name) => file.tensors.has(name) && !Object.hasOwn(shapes, name));
  if (other === undefined) return { cfg, file };
  await file.close();
  throw new FormatError(`has a tensor "${other}", which the architecture "${cfg.architecture}" has not`, {
    where: file.path,
  });
}

/** The tensors of a file, in its order. */
function shapesOf({
  dims,
  selects,
  skip,
}: Pick<Cfg, "dims" | "selects" | "skip">): Readonly<Record<string, readonly number[]>> {
  const { dIn, n, dOut } = dims;
  return {
    ...{ W_enc: [dIn, n], b_enc: [n], W_dec: [n, dOut], b_dec: [dOut] },
    ...(selects === "threshold" ? { threshold: [n] } : {}),
    ...(skip ? { W_skip: [dOut, dIn] } : {}),
  };
}

async function open(place: Place, told: Told): Promise<Foreign> {
  const { cfg, file } = await opened(place, told);
  const shapes = shapesOf(cfg);
  const { dims, k, selects, layerNorm, model, hook, targetHook, skip } = cfg;
  const { dIn: d, n, dOut } = dims;
  const folded = !cfg.subtract && dims.untied !== true;
  const get = (name: string): Promise<Floats> => safetensorsFloats(file, name, shapes[name]!);
  const norms = async (): Promise<Float64Array> => rowNorms(await get("W_dec"), dOut);
  const read = {
    encoder: async () => {
      const rows = transposed(await get("W_enc"), d, n);
      return cfg.byNorm ? timesRows(rows, await norms(), d) : rows;
    },
    latentBias: async () => {
      const bias = await get("b_enc");
      const shifted = folded ? plusProduct(bias, transposed(await get("W_enc"), d, n), await get("b_dec")) : bias;
      return cfg.byNorm ? timesRows(shifted, await norms(), 1) : shifted;
    },
    decoder: async () => {
      const rows = await get("W_dec");
      const inverse = cfg.byNorm ? (await norms()).map((norm) => (norm > 0 ? 1 / norm : 0)) : undefined;
      return inverse === undefined ? rows : timesRows(rows, inverse, dOut);
    },
    preBias: () => get("b_dec"),
  };
  const threshold = selects === "relu" ? () => Promise.resolve(new Float32Array(n)) : () => get("threshold");
  const notes = [
    ...(folded ? ["apply_b_dec_to_input is false: the encoder's product with b_dec is in the latents' bias"] : []),
    ...(cfg.byNorm
      ? ["rescale_acts_by_decoder_norm: the norms of decoder rows are in the encoder, and the rows have norm 1"]
      : []),
    ...(selects === "relu" ? [RELU_NOTE] : []),
  ];
  return closedOnFailure(file, () => {
    const facts = { dims, skip, layerNorm, model, tensor: hook, targetTensor: targetHook };
    const spec = k === undefined ? THRESHOLDS : topkOf(k);
    return {
      format: "saelens",
      files: [CFG, SAELENS_WEIGHTS],
      description: describeForeign("saelens", { ...facts, spec }, join(place.folder, CFG)),
      notes: [...notes, ...unusedNote(file.tensors.keys(), Object.keys(shapes), SAELENS_WEIGHTS)],
      read: paramReader((name) => read[name](), { threshold, skip: () => get("W_skip") }),
      close: () => file.close(),
    };
  });
}

/**
 * The version of SAELens whose files these are: its loader takes files that do not say one for
 * those of before 6.
 */
const WRITTEN_AS = "6.49.2";

/** What an autoencoder or transcoder is called, and its thresholds where it has some. */
async function kindToWrite(sae: Exchanged): Promise<[architecture: string, thresholds: Floats | undefined]> {
  const { description } = sae;
  const { dims, skip = false } = description;
  const isTopk = topkIn(description) !== undefined;
  const thresholds = isTopk ? undefined : await thresholdsIn(sae);
  if (dims.untied !== true) return [isTopk ? "topk" : "jumprelu", thresholds];
  if (thresholds === undefined) {
    throw new UsageError("SAELens has no transcoder of TopK", {
      mend: "use --format sparsify or circuit_tracer",
    });
  }
  const transcoder = skip ? "skip_transcoder" : "transcoder";
  // ReLU, which SAELens' first transcoders have.
  if (thresholds.every((value) => value <= 0)) return [transcoder, undefined];
  return [`jumprelu_${transcoder}`, thresholds];
}

async function write(sae: Exchanged, dtype: "f32" | "f64", options: WriteOptions): Promise<Written> {
  const { description } = sae;
  const { dims, saetta } = description;
  const { dIn: d, n, dOut, untied = false } = dims;
  const layerNorm = sayable(description, "SAELens", true, options);
  const [architecture, thresholds] = await kindToWrite(sae);
  const kind = KINDS[architecture]!;
  const cfg: JsonObject = {
    architecture,
    d_in: d,
    d_sae: n,
    ...(untied ? { d_out: dOut } : {}),
    ...(kind.selects === "topk" ? { k: topkIn(description)! } : {}),
    dtype: dtype === "f32" ? "float32" : "float64",
    device: "cpu",
    apply_b_dec_to_input: !untied,
    normalize_activations: layerNorm ? "layer_norm" : "none",
    reshape_activations: "none",
    ...(kind.selects === "topk" ? { rescale_acts_by_decoder_norm: false } : {}),
    metadata: {
      sae_lens_version: WRITTEN_AS,
      sae_lens_training_version: null,
      model_name: options.model ?? saetta?.model ?? null,
      hook_name: options.hook ?? saetta?.tensor ?? null,
      ...(untied ? { hook_name_out: options.targetHook ?? saetta?.targetTensor ?? null } : {}),
      hook_head_index: null,
      context_size: null,
      prepend_bos: null,
      dataset_path: null,
      seqpos_slice: [null],
      model_from_pretrained_kwargs: {},
    },
  };
  const parts: Readonly<Record<string, () => Promise<Floats>>> = {
    W_enc: async () => transposed(await sae.read("encoder"), n, d),
    b_enc: () => sae.read("latentBias"),
    W_dec: () => sae.read("decoder"),
    b_dec: () => sae.read("preBias"),
    threshold: () => Promise.resolve(thresholds!),
    W_skip: () => sae.read("skip"),
  };
  const arrays = Object.entries(shapesOf({ ...kind, dims })).map(([name, shape]) => ({
    ...{ name, shape },
    read: parts[name]!,
  }));
  return {
    files: [jsonFile(CFG, cfg), safetensorsFile(SAELENS_WEIGHTS, dtype, arrays)],
    notes: lostWith(description, "SAELens"),
  };
}

export const saelens: ForeignFormat = {
  name: "saelens",
  open,
  write,
  async rules(place, told) {
    const { cfg, file } = await opened(place, told);
    try {
      const { dims, k } = cfg;
      const { dIn: d, n, dOut } = dims;
      const arrays: Record<string, Floats> = {};
      for (const [name, shape] of Object.entries(shapesOf(cfg)))
        arrays[name] = await safetensorsFloats(file, name, shape);
      const { W_enc, b_enc, W_dec, b_dec, threshold, W_skip } = arrays;
      const { subtract, layerNorm, byNorm } = cfg;
      return rulesOf({
        ...{ d, n, dOut, subtract, layerNorm, byNorm },
        selects: k === undefined ? { kind: "threshold", thresholds: threshold ?? 0 } : { kind: "topk", k },
        encoder: (i, j) => W_enc![i * n + j]!,
        decoder: (i, j) => W_dec![j * dOut + i]!,
        encoderBias: b_enc!,
        decoderBias: b_dec!,
        skip: W_skip && ((i, o) => W_skip[o * d + i]!),
      });
    } finally {
      await file.close();
    }
  },
};
