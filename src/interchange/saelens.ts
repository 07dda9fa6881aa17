/**
 * SAELens (https://github.com/decoderesearch/SAELens): cfg.json and sae_weights.safetensors with
 * W_enc [dIn,n], b_enc [n], W_dec [n,dOut], b_dec [dOut], `threshold` [n] of JumpReLU, b_gate,
 * b_mag and r_mag [n] instead of b_enc where it is gated, and W_skip [dOut,dIn] of a transcoder.
 * BatchTopK and Matryoshka are saved as JumpReLU; their checkpoints in training have topk_threshold
 * or log_threshold instead. Versions 3 to 5 have hook_point, activation_fn_str and
 * activation_fn_kwargs in cfg.json.
 */

import { join } from "node:path";
import { autoencoderDims, type Dims, transcoderDims } from "../sae/dims.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, UsageError } from "../util/errors.ts";
import { Fields, type JsonObject, readJsonFile } from "../util/json.ts";
import { type ArrayFile, openArrays } from "./array-file.ts";
import { chosenK, sayable, statedK } from "./description.ts";
import type { Exchanged, Floats, Foreign, ForeignFormat, Place, Told, WriteOptions, Written } from "./format.ts";
import {
  type FourArrays,
  type Layout,
  openFourArrays,
  rulesOfFourArrays,
  type Selects,
  usedNames,
} from "./four-arrays.ts";
import { lostWith, noK, thresholdsIn, topkIn } from "./selection.ts";
import { jsonFile, safetensorsFile, transposed } from "./tensors.ts";

const CFG = "cfg.json";
export const SAELENS_WEIGHTS = "sae_weights.safetensors";

/** What an architecture of SAELens computes. */
interface Kind {
  readonly selects: "topk" | "threshold" | "relu" | "gated";
  readonly transcoder: boolean;
  readonly skip: boolean;
  /** Whether its loader looks at rescale_acts_by_decoder_norm. */
  readonly rescales?: boolean;
}

const KINDS: Readonly<Record<string, Kind>> = {
  topk: { selects: "topk", transcoder: false, skip: false, rescales: true },
  jumprelu: { selects: "threshold", transcoder: false, skip: false },
  batchtopk: { selects: "threshold", transcoder: false, skip: false, rescales: true },
  matryoshka_batchtopk: { selects: "threshold", transcoder: false, skip: false, rescales: true },
  standard: { selects: "relu", transcoder: false, skip: false },
  gated: { selects: "gated", transcoder: false, skip: false },
  transcoder: { selects: "relu", transcoder: true, skip: false },
  skip_transcoder: { selects: "relu", transcoder: true, skip: true },
  jumprelu_transcoder: { selects: "threshold", transcoder: true, skip: false },
  jumprelu_skip_transcoder: { selects: "threshold", transcoder: true, skip: true },
};

/** Tensors of thresholds in checkpoints of training. */
const CHECKPOINT_THRESHOLDS = ["topk_threshold", "log_threshold"];

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
    byNorm: kind.rescales === true && cfg.boolean("rescale_acts_by_decoder_norm", false),
    model: text("model_name"),
    hook: text("hook_name") ?? text("hook_point"),
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
const MORE = ["threshold", ...CHECKPOINT_THRESHOLDS, "W_skip", "b_gate", "b_mag", "r_mag"];
const LAYOUT: Layout = {
  names: { encoder: "W_enc", encoderBias: "b_enc", decoder: "W_dec", decoderBias: "b_dec" },
  transposed: ["encoder"],
};
const GATED: Layout = { ...LAYOUT, names: { ...LAYOUT.names, encoderBias: undefined } };

async function opened(place: Place, told: Told): Promise<{ readonly cfg: Cfg; readonly arrays: FourArrays }> {
  const cfg = await readCfg(place.folder, told);
  const file = await openArrays(join(place.folder, SAELENS_WEIGHTS));
  return closedOnFailure(file, async () => {
    const arrays: FourArrays = {
      ...{ file, dims: cfg.dims, subtract: cfg.subtract, layerNorm: cfg.layerNorm, says: CFG },
      layout: cfg.selects === "gated" ? GATED : LAYOUT,
      selects: selectsOf(cfg, file),
      byNorm: cfg.byNorm ? "latents" : undefined,
      skip: cfg.skip ? { array: "W_skip" } : undefined,
    };
    // Tensors of other architectures under a cfg.json of this one.
    const used = usedNames(arrays);
    const other = MORE.find((name) => file.names.has(name) && !used.includes(name));
    if (other !== undefined)
      throw new FormatError(`has a tensor "${other}", which the architecture "${cfg.architecture}" has not`, {
        where: file.path,
      });
    await refuseScaling(file, cfg.dims.n);
    return { cfg, arrays };
  });
}

function selectsOf({ selects, k }: Cfg, { names }: ArrayFile): Selects {
  switch (selects) {
    case "topk":
      return { kind: "topk", k: k! };
    case "relu":
      return { kind: "relu" };
    case "gated":
      return { kind: "gated", gate: "b_gate", magnitude: "b_mag", scale: "r_mag" };
    case "threshold": {
      if (names.has("topk_threshold")) return { kind: "threshold", array: "topk_threshold", one: [] };
      if (names.has("log_threshold")) return { kind: "threshold", array: "log_threshold", isLog: true };
      return { kind: "threshold", array: "threshold" };
    }
  }
}

const SCALING = "scaling_factor";

/** Versions before 4 wrote factors of latents that were all 1 where nothing had set them. */
async function refuseScaling(file: ArrayFile, n: number): Promise<void> {
  if (!file.names.has(SCALING)) return;
  const factors = await file.floats(SCALING, [n], CFG);
  if (factors.some((factor) => factor !== 1))
    throw new FormatError("its scaling_factor is not 1 for all latents, which Saetta does not compute", {
      where: file.path,
    });
}

async function open(place: Place, told: Told): Promise<Foreign> {
  const { cfg, arrays } = await opened(place, told);
  const { model, hook, targetHook } = cfg;
  return openFourArrays(arrays, {
    ...{ format: "saelens", files: [CFG, SAELENS_WEIGHTS], understood: [SCALING] },
    ...{ model, tensor: hook, targetTensor: targetHook },
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
  const shapes: readonly (readonly [name: string, shape: readonly number[]])[] = [
    ...([
      ["W_enc", [d, n]],
      ["b_enc", [n]],
      ["W_dec", [n, dOut]],
      ["b_dec", [dOut]],
    ] as const),
    ...(kind.selects === "threshold" ? ([["threshold", [n]]] as const) : []),
    ...(kind.skip ? ([["W_skip", [dOut, d]]] as const) : []),
  ];
  const arrays = shapes.map(([name, shape]) => ({ name, shape, read: parts[name]! }));
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
    return rulesOfFourArrays((await opened(place, told)).arrays);
  },
};
