/**
 * dictionary_learning (https://github.com/saprmarks/dictionary_learning), AutoEncoderTopK: ae.pt, a
 * torch file of encoder.weight [n,d], encoder.bias [n], decoder.weight [d,n], b_dec [d], k and
 * threshold (which only its encode with use_threshold looks at), and config.json. BatchTopK has the
 * same arrays: only config.json tells them apart.
 */

import { dirname, join, resolve } from "node:path";
import type { TorchValue } from "../formats/torch-pickle.ts";
import type { TorchFile } from "../formats/torch-read.ts";
import { TorchTensor } from "../formats/torch-tensor.ts";
import { type TorchPart, writeTorch } from "../formats/torch-write.ts";
import { architectureCalled, called, computedInstead, topkSpecOf } from "../sae/architectures/index.ts";
import { bytesOf } from "../util/bytes.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, SaettaError, UsageError } from "../util/errors.ts";
import { Fields, readJsonFile } from "../util/json.ts";
import { chosenK, describeForeign, sayable, statedK } from "./description.ts";
import type { Exchanged, Foreign, ForeignFormat, Place, Told, WriteOptions } from "./format.ts";
import { jsonFile, unusedNote } from "./tensors.ts";
import { arrayParts, rulesOfArrays, type TorchArrays, withArrays } from "./torch-arrays.ts";

export const AE_FILE = "ae.pt";
const CONFIG = "config.json";
const NAMES = { preBias: "b_dec", latentBias: "encoder.bias", encoder: "encoder.weight", decoder: "decoder.weight" };

/** Whether the names are those of such a file. */
export function isDictionaryLearning(items: ReadonlyMap<string, TorchValue>): boolean {
  return items.has("encoder.bias") && items.has("decoder.weight") && items.has("b_dec");
}

interface Opened extends TorchArrays {
  readonly k: number;
  readonly model: string | undefined;
  readonly tensor: string | undefined;
  readonly notes: readonly string[];
}

function opened({ folder, names, file }: Place, told: Told): Promise<Opened> {
  const path = join(folder, file ?? AE_FILE);
  return withArrays(path, NAMES, async (arrays) => {
    const at = await configFor(folder, names);
    const config = at === undefined ? undefined : await trainerOf(at);
    if (config === undefined && told.k === undefined) {
      throw new UsageError(`without its ${CONFIG} the file may be of BatchTopK as well as of TopK`, {
        where: path,
        mend: `put the ${CONFIG} beside it, or say that it is TopK with --k K`,
      });
    }
    const buffer = await kOf(arrays.file, arrays.items.get("k"));
    if (config?.k !== undefined && buffer !== undefined && config.k !== buffer)
      throw new FormatError(`k is ${buffer}, but ${at} says ${config.k}`, {
        where: path,
        mend: "put the config.json of this autoencoder next to it",
      });
    const k = chosenK(buffer ?? config?.k, told, path); // until 2024 only config.json said it
    const notes = config === undefined ? [`there is no ${CONFIG}: taken for AutoEncoderTopK`] : [];
    return { ...arrays, k, model: config?.model, tensor: config?.tensor, notes };
  });
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

async function trainerOf(where: string): Promise<{
  readonly k: number | undefined;
  readonly model: string | undefined;
  readonly tensor: string | undefined;
}> {
  const trainer = new Fields(await readJsonFile(where), CONFIG, where).fields("trainer");
  const stated = trainer.string("dict_class");
  if (architectureCalled("dictionary_learning", stated) === undefined)
    throw new FormatError(`dict_class "${stated}" ${computedInstead("dictionary_learning")}`, { where });
  const text = (name: string): string | undefined =>
    typeof trainer.get(name) === "string" ? trainer.string(name) : undefined;
  const layer = trainer.get("layer");
  return {
    k: trainer.has("k") ? statedK(trainer.get("k"), where) : undefined,
    model: text("lm_name"),
    tensor: text("submodule_name") ?? (typeof layer === "number" ? `layer ${layer}` : undefined),
  };
}

/** An integer tensor of one element, or a number. */
async function kOf(file: TorchFile, value: TorchValue | undefined): Promise<number | undefined> {
  if (value === undefined) return undefined;
  if (!(value instanceof TorchTensor)) return statedK(value, file.path);
  const { dtype, elements } = value;
  if (elements !== 1 || (dtype !== "i32" && dtype !== "i64"))
    throw new FormatError('tensor "k" is not one whole number', { where: file.path });
  const bytes = await file.read(value);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return statedK(dtype === "i32" ? view.getInt32(0, true) : Number(view.getBigInt64(0, true)), file.path);
}

async function open(place: Place, told: Told): Promise<Foreign> {
  const { file, items, read, notes, ...facts } = await opened(place, told);
  return closedOnFailure(file, () => {
    const name = place.file ?? AE_FILE;
    return {
      format: "dictionary_learning",
      files: [name, ...(place.names.has(CONFIG) ? [CONFIG] : [])],
      description: describeForeign("dictionary_learning", facts, file.path),
      notes: [...notes, ...unusedNote(items.keys(), [...Object.values(NAMES), "k", "threshold"], name)],
      read,
      close: () => file.close(),
    };
  });
}

function write(sae: Exchanged, dtype: "f32" | "f64", options: WriteOptions): ReturnType<ForeignFormat["write"]> {
  sayable(sae.description, "dictionary_learning", false, options);
  const { dims, spec, saetta } = sae.description;
  const { dIn: d, n } = dims;
  const { k } = topkSpecOf(spec, "dictionary_learning");
  const one = (values: Int32Array | Float32Array, of: "i32" | "f32"): TorchPart => ({
    dtype: of,
    shape: [],
    bytes: () => Promise.resolve(bytesOf(values)),
  });
  const dict = {
    ...arrayParts(sae, dtype, NAMES),
    k: one(Int32Array.of(k), "i32"),
    threshold: one(Float32Array.of(-1), "f32"), // not set
  };
  const trainer = {
    ...{
      trainer_class: "TopKTrainer",
      dict_class: called(spec, "dictionary_learning"),
      lr: null,
      steps: null,
      auxk_alpha: null,
      warmup_steps: null,
      decay_start: null,
    },
    ...{
      threshold_beta: null,
      threshold_start_step: null,
      seed: null,
      activation_dim: d,
      dict_size: n,
      k,
      device: "cpu",
      layer: null,
    },
    ...{
      lm_name: options.model ?? saetta?.model ?? null,
      wandb_name: called(spec, "dictionary_learning"),
      submodule_name: options.hook ?? saetta?.tensor ?? null,
    },
  };
  const buffer = {
    d_submodule: d,
    io: "out",
    n_ctxs: null,
    ctx_len: null,
    refresh_batch_size: null,
    out_batch_size: null,
    device: "cpu",
  };
  return [{ name: AE_FILE, content: (put) => writeTorch(put, dict) }, jsonFile(CONFIG, { trainer, buffer })];
}

export const dictionaryLearning: ForeignFormat = {
  name: "dictionary_learning",
  open,
  write,
  async rules(place, told) {
    const arrays = await opened(place, told);
    return rulesOfArrays(arrays, arrays.k, { layerNorm: false, subtract: true });
  },
};
