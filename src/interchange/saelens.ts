/**
 * SAELens (https://github.com/decoderesearch/SAELens), version 6: cfg.json and
 * sae_weights.safetensors with W_enc [d,n], b_enc [n], W_dec [n,d], b_dec [d]. Architecture "topk"
 * only; of files of earlier versions those that say topk as an activation function.
 */

import { join } from "node:path";
import { openSafetensors, type Safetensors } from "../formats/safetensors.ts";
import { architectureCalled, called, computedInstead, topkSpecOf } from "../sae/architectures/index.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError } from "../util/errors.ts";
import { Fields, type JsonObject, readJsonFile } from "../util/json.ts";
import { chosenK, describeForeign, sayable, statedK } from "./description.ts";
import type { Exchanged, Floats, Foreign, ForeignFormat, Place, Told, Weight, WriteOptions } from "./format.ts";
import { rulesOf } from "./rules.ts";
import { jsonFile, plusProduct, safetensorsFile, safetensorsFloats, transposed, unusedNote } from "./tensors.ts";

const CFG = "cfg.json";
export const SAELENS_WEIGHTS = "sae_weights.safetensors";
const TENSORS = ["W_enc", "b_enc", "W_dec", "b_dec"];

interface Cfg {
  readonly d: number;
  readonly n: number;
  readonly k: number;
  readonly subtract: boolean;
  readonly layerNorm: boolean;
  readonly byNorm: boolean;
  readonly model: string | undefined;
  readonly hook: string | undefined;
}

async function readCfg(folder: string, told: Told): Promise<Cfg> {
  const where = join(folder, CFG);
  const cfg = new Fields(await readJsonFile(where), CFG, where);
  const word = (name: string, byDefault: string): string => (cfg.has(name) ? cfg.string(name) : byDefault);
  const architecture = word("architecture", "standard");
  const old = word("activation_fn", word("activation_fn_str", "relu"));
  const [kind, said] = architecture === "standard" ? ["activation", old] : ["architecture", architecture];
  if (architectureCalled("saelens", said) === undefined)
    throw new FormatError(`${kind} "${said}" ${computedInstead("saelens")}`, { where });
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
  if (cfg.boolean("finetuning_scaling_factor", false))
    throw new FormatError("finetuning_scaling_factor is not computed by Saetta", { where });
  const arguments_ = cfg.has("activation_fn_kwargs") ? cfg.fields("activation_fn_kwargs").get("k") : undefined;
  const k = cfg.has("k") ? cfg.get("k") : arguments_;
  const about = cfg.has("metadata") ? cfg.fields("metadata") : cfg;
  const text = (name: string): string | undefined => (about.has(name) ? about.string(name) : undefined);
  return {
    d: cfg.integer("d_in", 1),
    n: cfg.integer("d_sae", 1),
    k: chosenK(k === undefined ? undefined : statedK(k, where), told, where),
    subtract: cfg.boolean("apply_b_dec_to_input", true),
    layerNorm: normalization === "layer_norm",
    byNorm: cfg.boolean("rescale_acts_by_decoder_norm", false),
    model: text("model_name"),
    hook: text("hook_name"),
  };
}

function normalizationWord(cfg: Fields): string {
  const value = cfg.get("normalize_activations");
  return value === undefined || value === null || value === false ? "none" : cfg.string("normalize_activations");
}

async function opened(place: Place, told: Told): Promise<{ readonly cfg: Cfg; readonly file: Safetensors }> {
  const cfg = await readCfg(place.folder, told);
  const file = await openSafetensors(join(place.folder, SAELENS_WEIGHTS));
  // Tensors of other architectures under a cfg.json of this one.
  const other = ["threshold", "b_gate", "b_mag", "r_mag", "W_skip"].find((name) => file.tensors.has(name));
  if (other === undefined) return { cfg, file };
  await file.close();
  throw new FormatError(`has a tensor "${other}", which a TopK autoencoder has not`, { where: file.path });
}

function shapesOf({ d, n }: { readonly d: number; readonly n: number }): Readonly<Record<string, readonly number[]>> {
  return { W_enc: [d, n], b_enc: [n], W_dec: [n, d], b_dec: [d] };
}

async function open(place: Place, told: Told): Promise<Foreign> {
  const { cfg, file } = await opened(place, told);
  const shapes = shapesOf(cfg);
  const { d, n, k, layerNorm, model, hook } = cfg;
  const get = (name: string): Promise<Floats> => safetensorsFloats(file, name, shapes[name]!);
  const norms = async (): Promise<Float64Array> => rowNorms(await get("W_dec"), d);
  const read: Readonly<Record<Weight, () => Promise<Floats>>> = {
    encoder: async () => {
      const rows = transposed(await get("W_enc"), d, n);
      return cfg.byNorm ? timesRows(rows, await norms(), d) : rows;
    },
    latentBias: async () => {
      const bias = await get("b_enc");
      const shifted = cfg.subtract ? bias : plusProduct(bias, transposed(await get("W_enc"), d, n), await get("b_dec"));
      return cfg.byNorm ? timesRows(shifted, await norms(), 1) : shifted;
    },
    decoder: async () => {
      const rows = await get("W_dec");
      const inverse = cfg.byNorm ? (await norms()).map((norm) => (norm > 0 ? 1 / norm : 0)) : undefined;
      return inverse === undefined ? rows : timesRows(rows, inverse, d);
    },
    preBias: () => get("b_dec"),
  };
  const folded = [
    ...(cfg.subtract
      ? []
      : ["apply_b_dec_to_input is false: the encoder's product with b_dec is in the latents' bias"]),
    ...(cfg.byNorm
      ? ["rescale_acts_by_decoder_norm: the norms of decoder rows are in the encoder, and the rows have norm 1"]
      : []),
  ];
  return closedOnFailure(file, () => {
    const description = describeForeign(
      "saelens",
      { d, n, k, layerNorm, model, tensor: hook },
      join(place.folder, CFG),
    );
    const notes = [...folded, ...unusedNote(file.tensors.keys(), TENSORS, SAELENS_WEIGHTS)];
    return {
      format: "saelens",
      files: [CFG, SAELENS_WEIGHTS],
      description,
      notes,
      read: (name) => read[name](),
      close: () => file.close(),
    };
  });
}

function rowNorms(values: Floats, d: number): Float64Array {
  return Float64Array.from({ length: values.length / d }, (_, row) => {
    let square = 0;
    for (let i = row * d; i < (row + 1) * d; i++) square += values[i]! * values[i]!;
    return Math.sqrt(square);
  });
}

/** Rows of `width`, each times its factor, in place. */
function timesRows(values: Floats, factors: Float64Array, width: number): Floats {
  for (let i = 0; i < values.length; i++) values[i] = values[i]! * factors[Math.floor(i / width)]!;
  return values;
}

/**
 * The version of SAELens whose files these are: its loader takes files that do not say one for
 * those of before 6.
 */
const WRITTEN_AS = "6.49.2";

function write(sae: Exchanged, dtype: "f32" | "f64", options: WriteOptions): ReturnType<ForeignFormat["write"]> {
  const { dims, spec, saetta } = sae.description;
  const { dIn: d, n } = dims;
  const { k } = topkSpecOf(spec, "saelens");
  const layerNorm = sayable(sae.description, "SAELens", true, options);
  const cfg: JsonObject = {
    architecture: called(sae.description.spec, "saelens"),
    d_in: d,
    d_sae: n,
    k,
    dtype: dtype === "f32" ? "float32" : "float64",
    device: "cpu",
    apply_b_dec_to_input: true,
    normalize_activations: layerNorm ? "layer_norm" : "none",
    reshape_activations: "none",
    rescale_acts_by_decoder_norm: false,
    metadata: {
      sae_lens_version: WRITTEN_AS,
      sae_lens_training_version: null,
      model_name: options.model ?? saetta?.model ?? null,
      hook_name: options.hook ?? saetta?.tensor ?? null,
      hook_head_index: null,
      context_size: null,
      prepend_bos: null,
      dataset_path: null,
      seqpos_slice: [null],
      model_from_pretrained_kwargs: {},
    },
  };
  const shapes = shapesOf({ d, n });
  const parts: Readonly<Record<string, () => Promise<Floats>>> = {
    W_enc: async () => transposed(await sae.read("encoder"), n, d),
    b_enc: () => sae.read("latentBias"),
    W_dec: () => sae.read("decoder"),
    b_dec: () => sae.read("preBias"),
  };
  const arrays = Object.entries(parts).map(([name, read]) => ({ name, shape: shapes[name]!, read }));
  return [jsonFile(CFG, cfg), safetensorsFile(SAELENS_WEIGHTS, dtype, arrays)];
}

export const saelens: ForeignFormat = {
  name: "saelens",
  open,
  write,
  async rules(place, told) {
    const { cfg, file } = await opened(place, told);
    try {
      const shapes = shapesOf(cfg);
      const [wEnc, encoderBias, wDec, decoderBias] = await Promise.all(
        TENSORS.map((name) => safetensorsFloats(file, name, shapes[name]!)),
      );
      const { d, n } = cfg;
      return rulesOf({
        ...cfg,
        encoder: (i, j) => wEnc![i * n + j]!,
        decoder: (i, j) => wDec![j * d + i]!,
        encoderBias: encoderBias!,
        decoderBias: decoderBias!,
      });
    } finally {
      await file.close();
    }
  },
};
