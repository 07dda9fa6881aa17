/**
 * dictionary_learning (https://github.com/saprmarks/dictionary_learning): ae.pt, a torch file, and
 * config.json, which says the class.
 *
 * AutoEncoderTopK and BatchTopKSAE have encoder.weight [n,d], encoder.bias [n], decoder.weight
 * [d,n], b_dec [d], k and threshold; only config.json tells them apart. Matryoshka has W_enc [d,n],
 * b_enc [n], W_dec [n,d], b_dec [d], k, threshold and group_sizes. These two select latents above
 * the threshold; -1 says that it was never set. JumpReluAutoEncoder has the same matrices and a
 * threshold [n]; it does not take b_dec from the input, and gives latents times the norms of their
 * decoder rows.
 */

import { dirname, join, resolve } from "node:path";
import type { TorchValue } from "../formats/torch-pickle.ts";
import type { TorchFile } from "../formats/torch-read.ts";
import { TorchTensor } from "../formats/torch-tensor.ts";
import { type TorchDict, type TorchPart, writeTorch } from "../formats/torch-write.ts";
import { type ArchitectureSpec, architectureCalled, called, computedInstead } from "../sae/architectures/index.ts";
import { autoencoderDims } from "../sae/dims.ts";
import { bytesOf } from "../util/bytes.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, SaettaError, UsageError } from "../util/errors.ts";
import { Fields, readJsonFile } from "../util/json.ts";
import { chosenK, describeForeign, noTranscoder, paramReader, sayable, statedK } from "./description.ts";
import type { Exchanged, Floats, Foreign, ForeignFormat, Place, Told, WriteOptions, Written } from "./format.ts";
import { isSet, lostWith, noK, refuseUnset, THRESHOLDS, topkIn, topkOf } from "./selection.ts";
import { as, jsonFile, minusProduct, plusProduct, rowNorms, timesRows, torchFloats, unusedNote } from "./tensors.ts";
import { arrayParts, rulesOfArrays, type TorchArrays, type TorchLayout, withArrays } from "./torch-arrays.ts";

export const AE_FILE = "ae.pt";
const CONFIG = "config.json";

/** Of TopK and BatchTopK: two linear layers. */
const LAYERS: TorchLayout = {
  names: { preBias: "b_dec", latentBias: "encoder.bias", encoder: "encoder.weight", decoder: "decoder.weight" },
  transposed: ["decoder"],
};
/** Of Matryoshka and JumpReLU. */
const MATRICES: TorchLayout = {
  names: { preBias: "b_dec", latentBias: "b_enc", encoder: "W_enc", decoder: "W_dec" },
  transposed: ["encoder"],
};

type Architecture = ArchitectureSpec["architecture"];

function layoutOf(architecture: Architecture): TorchLayout {
  return architecture === "topk" || architecture === "batchtopk" ? LAYERS : MATRICES;
}

/** Whether the names are those of such a file. */
export function isDictionaryLearning(items: ReadonlyMap<string, TorchValue>): boolean {
  if (items.has("encoder.bias") && items.has("decoder.weight") && items.has("b_dec")) return true;
  return Object.values(MATRICES.names).every((name) => items.has(name)) && items.has("threshold");
}

interface Opened extends TorchArrays {
  readonly architecture: Architecture;
  readonly spec: ArchitectureSpec;
  readonly model: string | undefined;
  readonly tensor: string | undefined;
  readonly notes: readonly string[];
}

async function opened({ folder, names, file }: Place, told: Told): Promise<Opened> {
  const path = join(folder, file ?? AE_FILE);
  const at = await configFor(folder, names);
  const config = at === undefined ? undefined : await trainerOf(at);
  const architectureOf = (items: ReadonlyMap<string, TorchValue>): Architecture =>
    config?.architecture ?? architectureOfNames(items, told, path);
  return withArrays(
    path,
    (items) => layoutOf(architectureOf(items)),
    async (arrays) => {
      const { items } = arrays;
      const architecture = architectureOf(items);
      const buffer = await kOf(arrays.file, items.get("k"));
      if (config?.k !== undefined && buffer !== undefined && config.k !== buffer)
        throw new FormatError(`k is ${buffer}, but ${at} says ${config.k}`, {
          where: path,
          mend: "put the config.json of this autoencoder next to it",
        });
      const k = buffer ?? config?.k; // until 2024 only config.json said it
      const spec = await specOf(architecture, arrays, k, told, config?.groupWeights);
      const notes =
        config === undefined ? [`there is no ${CONFIG}: taken for ${called(spec, "dictionary_learning")}`] : [];
      return { ...arrays, architecture, spec, model: config?.model, tensor: config?.tensor, notes };
    },
  );
}

/** The architecture of a file without a config.json. */
function architectureOfNames(items: ReadonlyMap<string, TorchValue>, { k }: Told, where: string): Architecture {
  if (items.has("W_enc")) return items.has("group_sizes") ? "matryoshka" : "jumprelu";
  if (k !== undefined) return "topk";
  throw new UsageError(`without its ${CONFIG} the file may be of BatchTopK as well as of TopK`, {
    where,
    mend: `put the ${CONFIG} next to it, or say that it is TopK with --k K`,
  });
}

async function specOf(
  architecture: Architecture,
  { file, items, n }: TorchArrays,
  k: number | undefined,
  told: Told,
  groupWeights: readonly number[] | undefined,
): Promise<ArchitectureSpec> {
  if (architecture === "jumprelu") {
    noK(told, file.path);
    return THRESHOLDS;
  }
  const auxk = 0;
  const found = chosenK(k, told, file.path);
  if (architecture === "topk") return topkOf(found);
  if (architecture === "batchtopk") return { architecture, k: found, auxk };
  const sizes = await wholeNumbers(file, "group_sizes", items.get("group_sizes"));
  const prefixes: number[] = [];
  for (const size of sizes) prefixes.push((prefixes.at(-1) ?? 0) + size);
  if (sizes.length === 0 || sizes.some((size) => size < 1) || prefixes.at(-1) !== n)
    throw new FormatError(`group_sizes must be above 0 and sum to the ${n} latents`, { where: file.path });
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
  readonly architecture: Architecture;
  readonly k: number | undefined;
  readonly groupWeights: readonly number[] | undefined;
  readonly model: string | undefined;
  readonly tensor: string | undefined;
}

async function trainerOf(where: string): Promise<Trainer> {
  const trainer = new Fields(await readJsonFile(where), CONFIG, where).fields("trainer");
  const stated = trainer.string("dict_class");
  const architecture = architectureCalled("dictionary_learning", stated);
  if (architecture === undefined)
    throw new FormatError(`dict_class "${stated}" ${computedInstead("dictionary_learning")}`, { where });
  const text = (name: string): string | undefined =>
    typeof trainer.get(name) === "string" ? trainer.string(name) : undefined;
  const layer = trainer.get("layer");
  const weights = trainer.get("group_weights");
  const areWeights = Array.isArray(weights) && weights.every((each) => typeof each === "number" && each > 0);
  return {
    architecture,
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

/** The threshold of BatchTopK and Matryoshka [1], as the file has it. */
async function cutOf({ file, items }: TorchArrays): Promise<Floats> {
  const value = items.get("threshold");
  const shape = value instanceof TorchTensor && value.shape.length === 0 ? [] : [1];
  const cut = await torchFloats(file, "threshold", value, shape, "the class");
  return isSet(cut) ? cut : refuseUnset(file.path, `threshold is ${cut[0]}: it`, "train it past threshold_start_step");
}

/** The thresholds of JumpReLU [n], as the file has them. */
function thresholdsOf({ file, items, n }: TorchArrays): Promise<Floats> {
  return torchFloats(file, "threshold", items.get("threshold"), [n], MATRICES.names.encoder);
}

/** How far norms of rows may be from 1 where rounding to f32 explains it. */
const UNIT = 1e-6;

/** JumpReLU in our words: b_dec taken from the input, and norms of decoder rows in the encoder. */
function jumpRelu(arrays: TorchArrays): Exchanged["read"] {
  const { d } = arrays;
  const norms = async (): Promise<Float64Array | undefined> => {
    const found = rowNorms(await arrays.read("decoder"), d);
    return found.every((norm) => Math.abs(norm - 1) <= UNIT) ? undefined : found;
  };
  const scaled = async (values: Floats, width: number, factor = (norm: number) => norm): Promise<Floats> => {
    const by = await norms();
    return by === undefined ? values : timesRows(values, by.map(factor), width);
  };
  return paramReader(
    async (name) => {
      const values = await arrays.read(name);
      if (name === "encoder") return scaled(values, d);
      if (name === "decoder") return scaled(values, d, (norm) => (norm > 0 ? 1 / norm : 0));
      if (name === "preBias") return values;
      return scaled(plusProduct(values, await arrays.read("encoder"), await arrays.read("preBias")), 1);
    },
    { threshold: async () => scaled(await thresholdsOf(arrays), 1) },
  );
}

async function open(place: Place, told: Told): Promise<Foreign> {
  const arrays = await opened(place, told);
  const { file, items, layout, architecture, spec, model, tensor, d, n } = arrays;
  return closedOnFailure(file, async () => {
    const name = place.file ?? AE_FILE;
    const isJumpRelu = architecture === "jumprelu";
    const hasCut = !isJumpRelu && architecture !== "topk";
    if (hasCut) await cutOf(arrays);
    const facts = { dims: autoencoderDims(d, n), spec, model, tensor };
    const notes = isJumpRelu
      ? [
          "b_dec is not taken from the input: the encoder's product with it is in the latents' bias",
          "latents are times the norms of their decoder rows, which are in the encoder where they are not 1",
        ]
      : [];
    const used = [...Object.values(layout.names), "threshold", ...(isJumpRelu ? [] : ["k"])];
    const all = architecture === "matryoshka" ? [...used, "group_sizes"] : used;
    return {
      format: "dictionary_learning",
      files: [name, ...(place.names.has(CONFIG) ? [CONFIG] : [])],
      description: describeForeign("dictionary_learning", facts, file.path),
      notes: [...arrays.notes, ...notes, ...unusedNote(items.keys(), all, name)],
      read: isJumpRelu ? jumpRelu(arrays) : paramReader(arrays.read, { cut: () => cutOf(arrays) }),
      close: () => file.close(),
    };
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
  const layout = layoutOf(spec.architecture);
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
function untied({ description, read }: Exchanged): Exchanged["read"] {
  return async (name) => {
    if (name === "latentBias")
      return minusProduct(await read("latentBias"), await read("encoder"), await read("preBias"));
    const values = await read(name);
    if (name === "decoder" && rowNorms(values, description.dims.dOut).some((norm) => Math.abs(norm - 1) > UNIT)) {
      throw new UsageError(
        "dictionary_learning gives latents of JumpReLU times the norms of decoder rows, which are not 1 here",
        { mend: "use --format saelens" },
      );
    }
    return values;
  };
}

export const dictionaryLearning: ForeignFormat = {
  name: "dictionary_learning",
  open,
  write,
  async rules(place, told) {
    const arrays = await opened(place, told);
    const { architecture, spec } = arrays;
    const k = topkIn({ spec });
    if (k !== undefined) return rulesOfArrays(arrays, { selects: { kind: "topk", k }, subtract: true });
    const isJumpRelu = architecture === "jumprelu";
    const thresholds = isJumpRelu ? await thresholdsOf(arrays) : (await cutOf(arrays))[0]!;
    const flags = { subtract: !isJumpRelu, byNorm: isJumpRelu };
    return rulesOfArrays(arrays, { selects: { kind: "threshold", thresholds }, ...flags });
  },
};
