/** The formats of other programs by name, and which of them a path holds. */

import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { firstBytes, formatOf } from "../formats/open-file.ts";
import type { TorchValue } from "../formats/torch-pickle.ts";
import { itemsOf, openTorch } from "../formats/torch-read.ts";
import { FormatError, SaettaError } from "../util/errors.ts";
import { CIRCUIT_TRACER_CONFIG, circuitTracer, layerFiles } from "./circuit-tracer.ts";
import { AE_FILE, dictionaryLearning, isDictionaryLearning } from "./dictionary-learning.ts";
import type { Foreign, ForeignFormat, ForeignReader, FormatName, Place, Told } from "./format.ts";
import { GEMMA_SCOPE_WEIGHTS, HYPERPARAMETERS, refuseUnread, unreadTitle } from "./not-read.ts";
import { isOpenai, openai } from "./openai.ts";
import { isQwenScope, qwenScope } from "./qwen-scope.ts";
import { SAELENS_WEIGHTS, saelens } from "./saelens.ts";
import { SPARSIFY_WEIGHTS, sparsify } from "./sparsify.ts";

const BY_NAME: { readonly [F in FormatName]: ForeignFormat } = {
  saelens,
  sparsify,
  openai,
  dictionary_learning: dictionaryLearning,
  circuit_tracer: circuitTracer,
};

export function formatNamed(name: FormatName): ForeignFormat {
  return BY_NAME[name];
}

export interface FoundForeign {
  readonly format: ForeignReader;
  readonly place: Place;
}

/** Whether a folder with these names is of an autoencoder of another program, read or not. */
export function namesForeign(names: ReadonlySet<string>): boolean {
  const cfg = names.has("cfg.json") && (names.has(SAELENS_WEIGHTS) || names.has(SPARSIFY_WEIGHTS));
  return (
    cfg || isCircuitTracer(names) || [AE_FILE, HYPERPARAMETERS, GEMMA_SCOPE_WEIGHTS].some((name) => names.has(name))
  );
}

function isCircuitTracer(names: ReadonlySet<string>): boolean {
  return names.has(CIRCUIT_TRACER_CONFIG) && layerFiles(names).length > 0;
}

/**
 * Whether a folder with these names, or a file of it, is of an autoencoder of another program, read
 * or not: by its names, or by what a torch file holds, whatever it is called. A damaged torch file
 * is none.
 */
export async function isForeign(path: string, names: ReadonlySet<string>): Promise<boolean> {
  if ((await stat(path)).isDirectory()) {
    if (namesForeign(names) || (await unreadTitle({ folder: path, names, file: undefined })) !== undefined) return true;
    const [torch] = [...names].filter(isTorchName).sort();
    return torch !== undefined && (await holdsAutoencoder(join(path, torch)));
  }
  const name = basename(path);
  if (name === SAELENS_WEIGHTS || name === SPARSIFY_WEIGHTS) return names.has("cfg.json");
  if (isCircuitTracer(names) && [CIRCUIT_TRACER_CONFIG, ...layerFiles(names)].includes(name)) return true;
  if ([AE_FILE, HYPERPARAMETERS, GEMMA_SCOPE_WEIGHTS].includes(name)) return true;
  if ((await unreadTitle({ folder: dirname(path), names, file: name })) !== undefined) return true;
  return isTorchName(name) && (await holdsAutoencoder(path));
}

function isTorchName(name: string): boolean {
  return /\.pth?$/.test(name);
}

async function holdsAutoencoder(path: string): Promise<boolean> {
  try {
    const file = await openTorch(path);
    await file.close();
    const items = itemsOf(file.root);
    return items !== undefined && isAutoencoder(items);
  } catch (thrown) {
    if (thrown instanceof SaettaError) return false;
    throw thrown;
  }
}

/**
 * Which format the folder, or a file of it, is in by its names, and by the keys of a torch file;
 * undefined when in none. `names`: those in the folder. Throws FormatError for a format that is
 * known and not read.
 */
export async function findForeign(path: string, names: ReadonlySet<string>): Promise<FoundForeign | undefined> {
  const isFolder = (await stat(path)).isDirectory();
  const folder = isFolder ? path : dirname(path);
  const file = isFolder ? undefined : basename(path);
  const place = { folder, names, file };
  const layers = isCircuitTracer(names) ? layerFiles(names) : [];
  if (layers.length > 0 && (file === undefined || file === CIRCUIT_TRACER_CONFIG || layers.includes(file)))
    return {
      format: circuitTracer,
      place: { ...place, file: layers.includes(file ?? "") ? file : onlyLayer(layers, folder) },
    };
  if (file === undefined || file === "cfg.json" || file.endsWith(".safetensors")) {
    const has = (name: string) =>
      names.has("cfg.json") && names.has(name) && [undefined, "cfg.json", name].includes(file);
    if (has(SAELENS_WEIGHTS)) return { format: saelens, place };
    if (has(SPARSIFY_WEIGHTS)) return { format: sparsify, place };
    await refuseUnread(place);
    if (file !== undefined) return undefined;
  }
  if (file?.endsWith(".npz") || file?.endsWith(".json")) await refuseUnread(place);
  const torch = file ?? torchFileOf(names, folder);
  if (torch === undefined || (file !== undefined && formatOf(await firstBytes(path)) !== "zip" && !isTorchName(torch)))
    return undefined;
  return { format: await torchFormat(join(folder, torch)), place: { ...place, file: torch } };
}

/** The file of the only layer. */
function onlyLayer(layers: readonly string[], folder: string): string {
  const [first, ...more] = layers;
  if (more.length === 0) return first!;
  throw new SaettaError(`has transcoders of ${layers.length} layers (${layers.slice(0, 4).join(", ")})`, {
    where: folder,
    mend: `name one of them: ${join(folder, first!)}`,
  });
}

/** The torch file of a folder: ae.pt, or the only one. */
function torchFileOf(names: ReadonlySet<string>, folder: string): string | undefined {
  if (names.has(AE_FILE)) return AE_FILE;
  const files = [...names].filter(isTorchName);
  if (files.length < 2) return files[0];
  throw new SaettaError(`has ${files.length} torch files (${files.sort().slice(0, 4).join(", ")})`, {
    where: folder,
    mend: "name one of them",
  });
}

async function torchFormat(path: string): Promise<ForeignReader> {
  const file = await openTorch(path);
  await file.close();
  const items = itemsOf(file.root);
  if (items !== undefined && isOpenai(items)) return openai;
  if (items !== undefined && isDictionaryLearning(items)) return dictionaryLearning;
  if (items !== undefined && isQwenScope(items)) return qwenScope;
  const shown =
    items === undefined
      ? "no dict of names"
      : `only ${
          [...items.keys()]
            .slice(0, 6)
            .map((name) => JSON.stringify(name.slice(0, 40)))
            .join(", ") || "nothing"
        }`;
  throw new FormatError(
    `is no autoencoder of OpenAI (pre_bias, latent_bias) nor of dictionary_learning (encoder.bias, b_dec) nor of Qwen-Scope (W_enc, b_enc): it holds ${shown}`,
    {
      where: path,
    },
  );
}

/** Whether a torch file's names are those of an autoencoder. */
export function isAutoencoder(items: ReadonlyMap<string, TorchValue>): boolean {
  return isOpenai(items) || isDictionaryLearning(items) || isQwenScope(items);
}

/** Opens what `findForeign` found. */
export function openForeign({ format, place }: FoundForeign, told: Told): Promise<Foreign> {
  return format.open(place, told);
}
