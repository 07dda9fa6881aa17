/**
 * dictionary_learning (https://github.com/saprmarks/dictionary_learning): ae.pt, a torch file, and
 * config.json, which says the class.
 *
 * AutoEncoder, AutoEncoderTopK and BatchTopKSAE have encoder.weight [n,d], encoder.bias [n],
 * decoder.weight [d,n] and b_dec [d], which AutoEncoder calls bias; the latter two k and threshold,
 * and only config.json tells them apart. AutoEncoderNew has decoder.bias and does not take it from
 * the input. GatedAutoEncoder has encoder.weight and decoder.weight, decoder_bias, r_mag, gate_bias
 * and mag_bias. MatryoshkaBatchTopKSAE has W_enc [d,n], b_enc [n], W_dec [n,d], b_dec [d], k,
 * threshold and group_sizes. It and BatchTopKSAE select latents above the threshold; -1 says that
 * it was never set. JumpReluAutoEncoder has the same matrices and a threshold [n]; it does not take
 * b_dec from the input.
 *
 * Checkpoints are checkpoints/ae_STEP.pt below the folder of config.json. A run that can be resumed
 * has an ae.pt of step, ae (the arrays), optimizer, config and norm_factor, of which biases and
 * thresholds are still to be multiplied by norm_factor.
 */

import { dirname, join, resolve } from "node:path";
import type { TorchValue } from "../formats/torch-pickle.ts";
import type { TorchFile } from "../formats/torch-read.ts";
import { TorchTensor } from "../formats/torch-tensor.ts";
import { type TorchDict, type TorchPart, writeTorch } from "../formats/torch-write.ts";
import { type ArchitectureSpec, called } from "../sae/architectures/index.ts";
import { autoencoderDims } from "../sae/dims.ts";
import { bytesOf } from "../util/bytes.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, SaettaError, UsageError } from "../util/errors.ts";
import { Fields, readJsonFile } from "../util/json.ts";
import { openTorchArrays, type TorchArrayFile } from "./array-file.ts";
import { chosenK, inWords, noTranscoder, sayable, statedK } from "./description.ts";
import type { Exchanged, Foreign, ForeignFormat, Place, Told, WriteOptions, Written } from "./format.ts";
import {
  encoderShape,
  type FourArrays,
  type Layout,
  openFourArrays,
  rulesOfFourArrays,
  type Selects,
} from "./four-arrays.ts";
import { isSet, lostWith, noK, refuseUnset, THRESHOLDS, topkIn, topkOf } from "./selection.ts";
import { as, jsonFile, likeFirst, minusProduct } from "./tensors.ts";
import { arrayParts, type FullLayout } from "./torch-arrays.ts";

export const AE_FILE = "ae.pt";
const CONFIG = "config.json";

/** Two linear layers. */
const LAYERS: FullLayout = {
  names: {
    ...{ encoder: "encoder.weight", encoderBias: "encoder.bias" },
    ...{ decoder: "decoder.weight", decoderBias: "b_dec" },
  },
  transposed: ["decoder"],
};
/** Of Matryoshka and JumpReLU. */
const MATRICES: FullLayout = {
  names: { encoder: "W_enc", encoderBias: "b_enc", decoder: "W_dec", decoderBias: "b_dec" },
  transposed: ["encoder"],
};

/** A class of the library. */
interface Kind {
  /** What it is here; undefined where the library alone trains it, so that it is a threshold. */
  readonly architecture?: Architecture;
  readonly layout: Layout;
  readonly subtract: boolean;
  /** Whether names of arrays are those of the class; the first that fits counts. */
  fits(names: ReadonlySet<string>): boolean;
}

const KINDS: Readonly<Record<string, Kind>> = {
  MatryoshkaBatchTopKSAE: {
    ...{ architecture: "matryoshka", layout: MATRICES, subtract: true },
    fits: (names) => names.has("W_enc") && names.has("group_sizes"),
  },
  JumpReluAutoEncoder: {
    ...{ architecture: "jumprelu", layout: MATRICES, subtract: false },
    fits: (names) => names.has("W_enc") && names.has("threshold"),
  },
  GatedAutoEncoder: {
    layout: { ...LAYERS, names: { ...LAYERS.names, encoderBias: undefined, decoderBias: "decoder_bias" } },
    subtract: true,
    fits: (names) => names.has("gate_bias"),
  },
  AutoEncoder: {
    layout: { ...LAYERS, names: { ...LAYERS.names, decoderBias: "bias" } },
    subtract: true,
    fits: (names) => names.has("encoder.bias") && names.has("bias"),
  },
  AutoEncoderNew: {
    layout: { ...LAYERS, names: { ...LAYERS.names, decoderBias: "decoder.bias" } },
    subtract: false,
    fits: (names) => names.has("encoder.bias") && names.has("decoder.bias"),
  },
  AutoEncoderTopK: { architecture: "topk", layout: LAYERS, subtract: true, fits: isOfTopk },
  BatchTopKSAE: { architecture: "batchtopk", layout: LAYERS, subtract: true, fits: isOfTopk },
};

function isOfTopk(names: ReadonlySet<string>): boolean {
  return names.has("encoder.bias") && names.has("b_dec");
}

type Architecture = ArchitectureSpec["architecture"];

/** The dict of arrays in the file of a run that can be resumed. */
const INSIDE = "ae";

/** Whether the names are those of such a file. */
export function isDictionaryLearning(names: ReadonlySet<string>): boolean {
  const complete = ({ layout, fits }: Kind) =>
    fits(names) && Object.values(layout.names).every((name) => name === undefined || names.has(name));
  return Object.values(KINDS).some(complete) || isResumable(names);
}

function isResumable(names: ReadonlySet<string>): boolean {
  return [INSIDE, "optimizer", "norm_factor"].every((name) => names.has(name));
}

interface Opened {
  readonly arrays: FourArrays;
  readonly spec: ArchitectureSpec;
  readonly model: string | undefined;
  readonly tensor: string | undefined;
  readonly notes: readonly string[];
}

async function opened({ folder, names, file: named }: Place, told: Told): Promise<Opened> {
  const path = join(folder, named ?? AE_FILE);
  const at = await configFor(folder, names);
  const config = at === undefined ? undefined : await trainerOf(at);
  const file = await openOrResumable(path);
  return closedOnFailure(file, async () => {
    const dictClass = config?.dictClass ?? classOf(file, told);
    const { architecture, layout, subtract } = KINDS[dictClass]!;
    const [n, d] = encoderShape(file, layout);
    const buffer = await kOf(file.torch, file.items.get("k"));
    if (config?.k !== undefined && buffer !== undefined && config.k !== buffer)
      throw new FormatError(`k is ${buffer}, but ${at} says ${config.k}`, {
        where: path,
        mend: "put the config.json of this autoencoder next to it",
      });
    const k = buffer ?? config?.k; // until 2024 only config.json said it
    if (architecture === undefined) noK(told, path);
    const spec =
      architecture === undefined ? THRESHOLDS : await specOf(architecture, file, n, k, told, config?.groupWeights);
    const arrays: FourArrays = {
      ...{ file, dims: autoencoderDims(d, n), layout, subtract, says: layout.names.encoder },
      selects: selectsOf(dictClass, spec, file),
    };
    if (spec.architecture === "batchtopk" || spec.architecture === "matryoshka") await refuseUnsetCut(file);
    const notes = config === undefined ? [`there is no ${CONFIG}: taken for ${dictClass}`] : [];
    return { arrays, spec, model: config?.model, tensor: config?.tensor, notes };
  });
}

/** The arrays of a file; of a run that can be resumed with biases and thresholds in their units. */
async function openOrResumable(path: string): Promise<TorchArrayFile> {
  const file = await openTorchArrays(path);
  if (!isResumable(file.names)) return file;
  const factor = await closedOnFailure(file, () => normFactor(file));
  await file.close();
  const inside = await openTorchArrays(path, INSIDE);
  if (factor === 1) return inside;
  return {
    ...inside,
    async floats(name, shape, says) {
      const values = await inside.floats(name, shape, says);
      const inUnits = !/weight$|^W_|^r_mag$/.test(name);
      return inUnits
        ? likeFirst(
            values,
            Float64Array.from(values, (value) => value * factor),
          )
        : values;
    },
  };
}

async function normFactor(file: TorchArrayFile): Promise<number> {
  const value = file.items.get("norm_factor");
  const found =
    value instanceof TorchTensor ? (await file.floats("norm_factor", value.shape, "the file"))[0] : (value ?? 1);
  if (typeof found === "number" && found > 0 && Number.isFinite(found)) return found;
  throw new FormatError(`norm_factor must be a number above 0, but is ${inWords(found)}`, { where: file.path });
}

function selectsOf(dictClass: string, spec: ArchitectureSpec, file: TorchArrayFile): Selects {
  if (dictClass === "GatedAutoEncoder")
    return { kind: "gated", gate: "gate_bias", magnitude: "mag_bias", scale: "r_mag" };
  if (KINDS[dictClass]!.architecture === undefined) return { kind: "relu" };
  if (spec.architecture === "topk") return { kind: "topk", k: spec.k };
  if (spec.architecture === "jumprelu") return { kind: "threshold", array: "threshold" };
  return { kind: "threshold", array: "threshold", one: file.shapeOf("threshold")?.length === 0 ? [] : [1] };
}

/** Throws SaettaError where the threshold of BatchTopK and Matryoshka was never set. */
async function refuseUnsetCut(file: TorchArrayFile): Promise<void> {
  const shape = file.shapeOf("threshold")?.length === 0 ? [] : [1];
  const cut = await file.floats("threshold", shape, "the class");
  if (!isSet(cut)) refuseUnset(file.path, `threshold is ${cut[0]}: it`, "train it past threshold_start_step");
}

/** The class of a file without a config.json. */
function classOf({ names, path }: TorchArrayFile, { k }: Told): string {
  const found = Object.keys(KINDS).find((each) => KINDS[each]!.fits(names));
  if (found === undefined)
    throw new FormatError(`its arrays are those of no class that is read (${Object.keys(KINDS).join(", ")})`, {
      where: path,
    });
  if (found !== "AutoEncoderTopK" || k !== undefined) return found;
  throw new UsageError(`without its ${CONFIG} the file may be of BatchTopK as well as of TopK`, {
    where: path,
    mend: `put the ${CONFIG} next to it, or say that it is TopK with --k K`,
  });
}

async function specOf(
  architecture: Architecture,
  { path, torch, items }: TorchArrayFile,
  n: number,
  k: number | undefined,
  told: Told,
  groupWeights: readonly number[] | undefined,
): Promise<ArchitectureSpec> {
  if (architecture === "jumprelu") {
    noK(told, path);
    return THRESHOLDS;
  }
  const auxk = 0;
  const found = chosenK(k, told, path);
  if (architecture === "topk") return topkOf(found);
  if (architecture === "batchtopk") return { architecture, k: found, auxk };
  const sizes = await wholeNumbers(torch, "group_sizes", items.get("group_sizes"));
  const prefixes: number[] = [];
  for (const size of sizes) prefixes.push((prefixes.at(-1) ?? 0) + size);
  if (sizes.length === 0 || sizes.some((size) => size < 1) || prefixes.at(-1) !== n)
    throw new FormatError(`group_sizes must be above 0 and sum to the ${n} latents`, { where: path });
  const stated = groupWeights?.length === sizes.length ? groupWeights : sizes.map(() => 1);
  const sum = stated.reduce((a, b) => a + b, 0);
  return { architecture, k: found, auxk, prefixes, weights: stated.map((each) => each / sum), selection: "batchtopk" };
}

/** The config.json of the file: next to it, or above the folder of a trainer's checkpoints. */
async function configFor(folder: string, names: ReadonlySet<string>): Promise<string | undefined> {
  if (names.has(CONFIG)) return join(folder, CONFIG);
  const above = join(dirname(resolve(folder)), CONFIG);
  const json = await readJsonFile(above).catch((thrown: unknown) => {
    if (thrown instanceof SaettaError) return undefined;
    throw thrown;
  });
  // Any program may have a config.json: one without a trainer is of something else.
  return typeof json === "object" && json !== null && "trainer" in json ? above : undefined;
}

interface Trainer {
  readonly dictClass: string;
  readonly k: number | undefined;
  readonly groupWeights: readonly number[] | undefined;
  readonly model: string | undefined;
  readonly tensor: string | undefined;
}

async function trainerOf(where: string): Promise<Trainer> {
  const trainer = new Fields(await readJsonFile(where), CONFIG, where).fields("trainer");
  const dictClass = trainer.string("dict_class");
  if (!Object.hasOwn(KINDS, dictClass))
    throw new FormatError(
      `dict_class "${dictClass}" is not computed by Saetta (it computes ${Object.keys(KINDS).join(", ")})`,
      { where },
    );
  const text = (name: string): string | undefined =>
    typeof trainer.get(name) === "string" ? trainer.string(name) : undefined;
  const layer = trainer.get("layer");
  const weights = trainer.get("group_weights");
  const areWeights = Array.isArray(weights) && weights.every((each) => typeof each === "number" && each > 0);
  return {
    dictClass,
    k: trainer.has("k") ? statedK(trainer.get("k"), where) : undefined,
    groupWeights: areWeights ? (weights as readonly number[]) : undefined,
    model: text("lm_name"),
    tensor: text("submodule_name") ?? (typeof layer === "number" ? `layer ${layer}` : undefined),
  };
}

/** An integer tensor of one element, or a number. */
async function kOf(file: TorchFile, value: TorchValue | undefined): Promise<number | undefined> {
  if (value === undefined) return undefined;
  if (!(value instanceof TorchTensor)) return statedK(value, file.path);
  const [k, ...more] = await wholeNumbers(file, "k", value);
  if (k === undefined || more.length > 0)
    throw new FormatError('tensor "k" is not one whole number', { where: file.path });
  return statedK(k, file.path);
}

/** The elements of an integer tensor. */
async function wholeNumbers(file: TorchFile, name: string, value: TorchValue | undefined): Promise<number[]> {
  const is = value instanceof TorchTensor && (value.dtype === "i32" || value.dtype === "i64") ? value : undefined;
  if (is === undefined) throw new FormatError(`"${name}" is no tensor of whole numbers`, { where: file.path });
  const bytes = await file.read(is);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: is.elements }, (_, i) =>
    is.dtype === "i32" ? view.getInt32(4 * i, true) : Number(view.getBigInt64(8 * i, true)),
  );
}

async function open(place: Place, told: Told): Promise<Foreign> {
  const { arrays, ...about } = await opened(place, told);
  return openFourArrays(arrays, {
    ...{ format: "dictionary_learning", ...about, understood: ["threshold", "k", "group_sizes"] },
    files: [place.file ?? AE_FILE, ...(place.names.has(CONFIG) ? [CONFIG] : [])],
  });
}

/** What an autoencoder is written as: by what selects its latents. */
function specToWrite(spec: ArchitectureSpec): ArchitectureSpec {
  const k = topkIn({ spec });
  return k === undefined ? spec : topkOf(k);
}

/** Trainers of the classes. */
const TRAINERS: { readonly [A in Architecture]: string } = {
  topk: "TopKTrainer",
  batchtopk: "BatchTopKTrainer",
  matryoshka: "MatryoshkaBatchTopKTrainer",
  jumprelu: "JumpReluTrainer",
};

function write(sae: Exchanged, dtype: "f32" | "f64", options: WriteOptions): Written {
  const title = "dictionary_learning";
  noTranscoder(sae.description, title);
  sayable(sae.description, title, false, options);
  const { dims, saetta } = sae.description;
  const { dIn: d, n } = dims;
  const spec = specToWrite(sae.description.spec);
  const layout = spec.architecture === "topk" || spec.architecture === "batchtopk" ? LAYERS : MATRICES;
  const arrays = arrayParts(
    { description: sae.description, read: spec.architecture === "jumprelu" ? untied(sae) : sae.read },
    dtype,
    layout,
  );
  const k = "k" in spec ? Math.max(1, Math.round(spec.k)) : undefined;
  const groups = spec.architecture === "matryoshka" ? groupSizes(spec.prefixes) : undefined;
  const dict: TorchDict = {
    ...arrays,
    ...(k === undefined ? {} : { k: part("i32", [], () => Int32Array.of(k)) }),
    threshold: thresholdPart(sae, spec, dtype),
    ...(groups && { group_sizes: part("i64", [groups.length], () => BigInt64Array.from(groups, BigInt)) }),
  };
  const dictClass = called(spec, "dictionary_learning");
  const trainer = {
    ...{ trainer_class: TRAINERS[spec.architecture], dict_class: dictClass, lr: null, steps: null },
    ...{ auxk_alpha: null, warmup_steps: null, decay_start: null, threshold_beta: null, threshold_start_step: null },
    ...{ seed: null, activation_dim: d, dict_size: n, ...(k === undefined ? {} : { k }) },
    ...(groups && spec.architecture === "matryoshka"
      ? { group_fractions: groups.map((size) => size / n), group_weights: [...spec.weights], group_sizes: groups }
      : {}),
    ...{ device: "cpu", layer: null, lm_name: options.model ?? saetta?.model ?? null },
    ...{ wandb_name: dictClass, submodule_name: options.hook ?? saetta?.tensor ?? null },
  };
  const buffer = {
    ...{ d_submodule: d, io: "out", n_ctxs: null, ctx_len: null, refresh_batch_size: null },
    ...{ out_batch_size: null, device: "cpu" },
  };
  return {
    files: [{ name: AE_FILE, content: (put) => writeTorch(put, dict) }, jsonFile(CONFIG, { trainer, buffer })],
    notes: [
      ...lostNotes(sae, spec, title),
      ...(k !== undefined && "k" in spec && k !== spec.k ? [roundedNote(k, spec.k)] : []),
    ],
  };
}

function roundedNote(k: number, of: number): string {
  return `dictionary_learning has whole numbers for k: ${k} is written for ${of}, which training kept on average`;
}

/** What the class that is written has no place for. */
function lostNotes(sae: Exchanged, spec: ArchitectureSpec, title: string): string[] {
  if (spec.architecture !== "jumprelu") return spec === sae.description.spec ? [] : lostWith(sae.description, title);
  const folded = "b_dec is not taken from the input there: the encoder's product with it is in b_enc, rounded once";
  return [folded, ...lostWith(sae.description, title)];
}

function part(dtype: "i32" | "i64", shape: readonly number[], values: () => Int32Array | BigInt64Array): TorchPart {
  return { dtype, shape, bytes: () => Promise.resolve(bytesOf(values())) };
}

function groupSizes(prefixes: readonly number[]): number[] {
  return prefixes.map((end, g) => end - (prefixes[g - 1] ?? 0));
}

function thresholdPart(sae: Exchanged, spec: ArchitectureSpec, dtype: "f32" | "f64"): TorchPart {
  if (spec.architecture === "topk")
    // not set
    return { dtype: "f32", shape: [], bytes: () => Promise.resolve(bytesOf(Float32Array.of(-1))) };
  if (spec.architecture === "jumprelu")
    return { dtype, shape: [sae.description.dims.n], bytes: async () => as(dtype, await sae.read("threshold")) };
  return { dtype, shape: [], bytes: async () => as(dtype, await sae.read("cut")) };
}

/** JumpReLU in words of the library: b_dec not taken from the input. */
function untied({ read }: Exchanged): Exchanged["read"] {
  return async (name) => {
    if (name !== "latentBias") return read(name);
    return minusProduct(await read("latentBias"), await read("encoder"), await read("preBias"));
  };
}

export const dictionaryLearning: ForeignFormat = {
  name: "dictionary_learning",
  open,
  write,
  async rules(place, told) {
    return rulesOfFourArrays((await opened(place, told)).arrays);
  },
};
