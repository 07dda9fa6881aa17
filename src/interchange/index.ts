/** The formats of other programs by name, and which of them a path holds. */

import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { firstBytes, formatOf } from "../formats/open-file.ts";
import { openTorch } from "../formats/torch-read.ts";
import { FormatError, SaettaError } from "../util/errors.ts";
import { isFile } from "../util/folders.ts";
import { openArrays, torchNames } from "./array-file.ts";
import { CIRCUIT_TRACER_CONFIG, circuitTracer, layerFiles } from "./circuit-tracer.ts";
import { AE_FILE, dictionaryLearning, isDictionaryLearning } from "./dictionary-learning.ts";
import type { Foreign, ForeignFormat, ForeignReader, FormatName, Place, Told } from "./format.ts";
import { GEMMA_SCOPE_2_WEIGHTS, GEMMA_SCOPE_WEIGHTS, gemmaScope, gemmaScope2 } from "./gemma-scope.ts";
import { goodfire, isGoodfire } from "./goodfire.ts";
import { HYPERPARAMETERS, LLAMASCOPIUM_WEIGHTS, llamaScope, llamascopium } from "./llamascopium.ts";
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

/** What tells that a folder is of a format. */
export interface FolderEntry {
  readonly format: ForeignReader;
  /** Where the weights may be, relative to the folder. */
  readonly weights: readonly string[];
  /** A file that must be there, too. */
  readonly config?: string;
  /** Arrays that the weights must have, where the names of files do not tell. */
  readonly arrays?: readonly string[];
}

/** Formats with a folder for each autoencoder. The first that fits counts. */
export const FOLDERS: readonly FolderEntry[] = [
  { format: saelens, weights: [SAELENS_WEIGHTS], config: "cfg.json" },
  { format: sparsify, weights: [SPARSIFY_WEIGHTS], config: "cfg.json" },
  { format: llamaScope, weights: LLAMASCOPIUM_WEIGHTS, config: HYPERPARAMETERS },
  { format: llamaScope, weights: LLAMASCOPIUM_WEIGHTS, config: "config.json", arrays: ["encoder.weight"] },
  { format: llamascopium, weights: LLAMASCOPIUM_WEIGHTS, config: "config.json", arrays: ["W_E"] },
  { format: gemmaScope2, weights: [GEMMA_SCOPE_2_WEIGHTS], arrays: ["w_enc"] },
  { format: gemmaScope, weights: [GEMMA_SCOPE_WEIGHTS] },
];

/** Formats of torch files, told apart by the names in them. The first that fits counts. */
const TORCH: readonly { readonly format: ForeignReader; is(names: ReadonlySet<string>): boolean }[] = [
  { format: openai, is: isOpenai },
  { format: dictionaryLearning, is: isDictionaryLearning },
  { format: qwenScope, is: isQwenScope },
  { format: goodfire, is: isGoodfire },
];

export interface FoundForeign {
  readonly format: ForeignReader;
  readonly place: Place;
}

/** Whether a folder with these names is of an autoencoder of another program. */
export function namesForeign(names: ReadonlySet<string>): boolean {
  const isEntry = ({ weights, config }: FolderEntry) =>
    config === HYPERPARAMETERS
      ? names.has(config)
      : (config === undefined || names.has(config)) && weights.some((name) => names.has(name));
  return FOLDERS.some(isEntry) || isCircuitTracer(names) || names.has(AE_FILE);
}

function isCircuitTracer(names: ReadonlySet<string>): boolean {
  return names.has(CIRCUIT_TRACER_CONFIG) && layerFiles(names).length > 0;
}

/**
 * Whether a folder with these names, or a file of it, is of an autoencoder of another program: by
 * its names, or by what a torch file holds, whatever it is called. A damaged torch file is none.
 */
export async function isForeign(path: string, names: ReadonlySet<string>): Promise<boolean> {
  const isFolder = (await stat(path)).isDirectory();
  const place = { folder: isFolder ? path : dirname(path), names, file: isFolder ? undefined : basename(path) };
  if (isFolder) {
    if (namesForeign(names)) return true;
    const [torch] = [...names].filter(isTorchName).sort();
    return torch !== undefined && (await holdsAutoencoder(join(path, torch)));
  }
  const name = basename(path);
  if (isCircuitTracer(names) && [CIRCUIT_TRACER_CONFIG, ...layerFiles(names)].includes(name)) return true;
  if (name === AE_FILE) return true;
  const found = await folderFormat(place).catch((thrown: unknown) => {
    // A damaged file of weights, which its reader refuses.
    if (thrown instanceof SaettaError) return true;
    throw thrown;
  });
  return found !== undefined || (isTorchName(name) && (await holdsAutoencoder(path)));
}

function isTorchName(name: string): boolean {
  return /\.pth?$/.test(name);
}

async function holdsAutoencoder(path: string): Promise<boolean> {
  try {
    const file = await openTorch(path);
    await file.close();
    return isAutoencoder(torchNames(file.root));
  } catch (thrown) {
    if (thrown instanceof SaettaError) return false;
    throw thrown;
  }
}

/** The first entry of FOLDERS that the folder, or the file of it, fits. */
async function folderFormat({ folder, names, file }: Place): Promise<ForeignReader | undefined> {
  for (const { format, weights, config, arrays = [] } of FOLDERS) {
    if (config !== undefined && !names.has(config)) continue;
    if (file !== undefined && file !== config && !weights.includes(file)) continue;
    for (const name of weights) {
      const path = join(folder, name);
      if (!names.has(name.split("/")[0]!) || !(await isFile(path))) continue;
      if (arrays.length === 0) return format;
      const there = await openArrays(path);
      await there.close();
      if (arrays.every((array) => there.names.has(array))) return format;
    }
  }
  return undefined;
}

/**
 * Which format the folder, or a file of it, is in by its names, and by the keys of a torch file;
 * undefined when in none. `names`: those in the folder. Throws FormatError for a damaged file.
 */
export async function findForeign(path: string, names: ReadonlySet<string>): Promise<FoundForeign | undefined> {
  const isFolder = (await stat(path)).isDirectory();
  const folder = isFolder ? path : dirname(path);
  const file = isFolder ? undefined : basename(path);
  // Weights in a folder below that of their config.
  if (file !== undefined && LLAMASCOPIUM_WEIGHTS.some((name) => name === `${basename(folder)}/${file}`)) {
    const above = dirname(folder);
    return findForeign(above, new Set(await readdir(above)));
  }
  const place = { folder, names, file };
  const layers = isCircuitTracer(names) ? layerFiles(names) : [];
  if (layers.length > 0 && (file === undefined || file === CIRCUIT_TRACER_CONFIG || layers.includes(file)))
    return {
      format: circuitTracer,
      place: { ...place, file: layers.includes(file ?? "") ? file : onlyLayer(layers, folder) },
    };
  const format = await folderFormat(place);
  if (format !== undefined) return { format, place };
  if (file !== undefined && /\.(safetensors|json|npz)$/.test(file)) return undefined;
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
  const names = torchNames(file.root);
  const found = TORCH.find(({ is }) => is(names));
  if (found !== undefined) return found.format;
  const shown = [...names].slice(0, 6).map((name) => JSON.stringify(name.slice(0, 40)));
  const holds = file.root instanceof Map ? `only ${shown.join(", ") || "nothing"}` : "no dict of names";
  throw new FormatError(
    `is no autoencoder of OpenAI (pre_bias, latent_bias) nor of dictionary_learning (encoder.weight, b_dec) nor of Qwen-Scope (W_enc, b_enc) nor of Goodfire (encoder_linear.weight): it holds ${holds}`,
    {
      where: path,
    },
  );
}

/** Whether a torch file's names are those of an autoencoder. */
export function isAutoencoder(names: ReadonlySet<string>): boolean {
  return TORCH.some(({ is }) => is(names));
}

/** Opens what `findForeign` found. */
export function openForeign({ format, place }: FoundForeign, told: Told): Promise<Foreign> {
  return format.open(place, told);
}
