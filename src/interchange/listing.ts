/**
 * The autoencoders of a folder or repository of many: hook points, layers, widths, L0s. Which there
 * are follows from the names of files alone; their sizes from names, small configs and the headers
 * of weights, so that no weights are read.
 */

import type { ListedFile, Listing } from "../formats/listing.ts";
import { firstArray } from "../formats/npz.ts";
import { readSafetensorsHeader } from "../formats/safetensors.ts";
import { SaettaError } from "../util/errors.ts";
import { type Json, parseJson } from "../util/json.ts";
import { CIRCUIT_TRACER_CONFIG, layerFiles } from "./circuit-tracer.ts";
import { AE_FILE } from "./dictionary-learning.ts";
import type { ReadFormatName } from "./format.ts";
import { FOLDERS } from "./index.ts";

export interface ListedSae {
  /** What is added to the root to name it: a folder, or a file of a folder of many. */
  readonly path: string;
  readonly format: ReadFormatName;
  /** The file of the weights, and its config where it has one; relative to the root. */
  readonly weights: string;
  readonly config?: string | undefined;
  /** Of the weights. */
  readonly bytes: number;
  readonly inputs?: number | undefined;
  readonly latents?: number | undefined;
  /** Mean active latents per row, or a word for it: "medium". */
  readonly l0?: number | string | undefined;
}

interface Folder {
  readonly path: string;
  /** Paths relative to the folder, at most one folder deep, and their sizes. */
  readonly files: ReadonlyMap<string, number>;
}

/** The autoencoders that the files make, in the order of their numbers. */
export function saesIn(files: readonly ListedFile[]): readonly ListedSae[] {
  const found: ListedSae[] = [];
  const taken = new Set<string>();
  for (const folder of foldersOf(files)) {
    if (ancestors(folder.path).some((path) => taken.has(path))) continue;
    const here = saesOf(folder);
    // What is below an autoencoder are its checkpoints.
    if (here.some(({ path }) => path === folder.path)) taken.add(folder.path);
    found.push(...here);
  }
  return found.sort((a, b) => a.path.localeCompare(b.path, "en", { numeric: true }));
}

/** Outer folders before inner ones. */
function foldersOf(files: readonly ListedFile[]): Folder[] {
  const folders = new Map<string, Map<string, number>>();
  const add = (folder: string, name: string, bytes: number) => {
    const names = folders.get(folder) ?? new Map<string, number>();
    folders.set(folder, names.set(name, bytes));
  };
  for (const { path, bytes } of files) {
    const [name, inner, ...outer] = path.split("/").reverse() as [string, ...string[]];
    add([...outer.reverse(), ...(inner === undefined ? [] : [inner])].join("/"), name, bytes);
    if (inner !== undefined) add(outer.join("/"), `${inner}/${name}`, bytes);
  }
  return [...folders].map(([path, names]) => ({ path, files: names })).sort((a, b) => depth(a.path) - depth(b.path));
}

function depth(path: string): number {
  return path === "" ? 0 : path.split("/").length;
}

/** The folders above a path, that of all files ("") not among them. */
function ancestors(path: string): string[] {
  const names = path.split("/");
  return names.slice(1).map((_, i) => names.slice(0, i + 1).join("/"));
}

/** Torch files that are autoencoders by their names. */
const TORCH_NAMES: readonly (readonly [pattern: RegExp, format: ReadFormatName])[] = [
  [/\.sae\.pth?$/, "qwen_scope"],
  [/^ae(_\d+)?\.pt$/, "dictionary_learning"],
  [/^autoencoder[^/]*\.pth?$/, "openai"],
  [/-SAE-l\d+\.pth?$/, "goodfire"],
];

function saesOf({ path: folder, files }: Folder): ListedSae[] {
  const at = (name: string) => (folder === "" ? name : `${folder}/${name}`);
  const sae = (format: ReadFormatName, path: string, weights: string, config?: string): ListedSae => {
    const named = { path, format, weights: at(weights), bytes: files.get(weights)! };
    return { ...named, config: config === undefined ? undefined : at(config), ...inName(at(weights)) };
  };
  for (const { format, weights, config } of FOLDERS) {
    const name = weights.find((each) => files.has(each));
    if (name === undefined || (config !== undefined && !files.has(config))) continue;
    return [sae(format.name, folder, name, config ?? (files.has("config.json") ? "config.json" : undefined))];
  }
  const names = new Set([...files.keys()].filter((name) => !name.includes("/")));
  const layers = names.has(CIRCUIT_TRACER_CONFIG) ? layerFiles(names) : [];
  if (layers.length > 0) return layers.map((name) => sae("circuit_tracer", at(name), name));
  if (names.has(AE_FILE))
    return [sae("dictionary_learning", folder, AE_FILE, names.has("config.json") ? "config.json" : undefined)];
  return [...names].flatMap((name) => {
    const format = TORCH_NAMES.find(([pattern]) => pattern.test(name))?.[1];
    return format === undefined ? [] : [sae(format, at(name), name)];
  });
}

/** What names say: width_16k, average_l0_71, l0_medium, L0_50. */
function inName(path: string): Pick<ListedSae, "latents" | "l0"> {
  const width = /width_(\d+)(k|m)(?![a-z0-9])/.exec(path);
  const l0 = /(?:^|[-_/])l0_(\d+|small|medium|big)(?![a-z0-9])/i.exec(path)?.[1];
  const power = { k: 10, m: 20 }[width?.[2] ?? ""];
  // 16k is 16384 and 65k is 65536: the power of two.
  const latents =
    width === null || power === undefined ? undefined : 2 ** Math.round(Math.log2(Number(width[1])) + power);
  return { latents, l0: l0 === undefined || !/^\d/.test(l0) ? l0 : Number(l0) };
}

const MOST_CONFIG = 1024 * 1024;
const NPZ_START = 16 * 1024;
/** Files that are looked into at the same time, as each may wait for a network. */
const AT_ONCE = 8;

/**
 * The same with what their configs and the headers of their weights say. What cannot be read says
 * nothing here: it has its error when it is opened.
 */
export async function withSizes(listing: Listing, saes: readonly ListedSae[]): Promise<readonly ListedSae[]> {
  const out = [...saes];
  const sizes = new Map((await listing.entries()).map(({ path, bytes }) => [path, bytes]));
  let next = 0;
  const work = async () => {
    for (let i = next++; i < saes.length; i = next++) {
      const sae = saes[i]!;
      const configBytes = sizes.get(sae.config ?? "") ?? 0;
      const stated = sae.config === undefined ? {} : await inConfig(listing, sae.config, configBytes).catch(nothing);
      const header = await inHeader(listing, sae).catch(nothing);
      out[i] = { ...sae, ...defined(stated), ...defined(header) };
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return out;
}

function nothing(thrown: unknown): Partial<ListedSae> {
  if (thrown instanceof SaettaError) return {};
  throw thrown;
}

function defined<T extends object>(values: T): Partial<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Partial<T>;
}

type Sizes = Pick<ListedSae, "inputs" | "latents" | "l0">;

async function inConfig(listing: Listing, path: string, bytes: number): Promise<Sizes> {
  if (bytes > MOST_CONFIG) return {};
  const json = parseJson(await listing.readRange(path, 0, bytes), path);
  const top = typeof json === "object" && json !== null && !Array.isArray(json) ? (json as Record<string, Json>) : {};
  const trainer = top.trainer;
  const config = (typeof trainer === "object" && trainer !== null ? trainer : top) as Record<string, Json>;
  const number = (...names: string[]): number | undefined => {
    const name = names.find((each) => typeof config[each] === "number" && Number.isFinite(config[each]));
    return name === undefined ? undefined : (config[name] as number);
  };
  const inputs = number("d_in", "d_model", "activation_dim");
  const factor = number("expansion_factor");
  const stated = number("d_sae", "num_latents", "dict_size", "width");
  const latents = stated || (inputs !== undefined && factor !== undefined ? Math.floor(inputs * factor) : undefined);
  const isTopk = config.act_fn === undefined || config.act_fn === "topk";
  return { inputs, latents, l0: number("l0", "k") ?? (isTopk ? number("top_k") : undefined) };
}

/** Names of encoders, and whether they are [n, d]; otherwise they are [d, n]. */
const ENCODERS: readonly (readonly [name: string, byLatent: boolean])[] = [
  ["encoder.weight", true],
  ["W_E", false],
  ["w_enc", false],
  ["W_enc", false],
];

async function inHeader(listing: Listing, { weights, bytes, format }: ListedSae): Promise<Partial<ListedSae>> {
  if (weights.endsWith(".npz")) {
    const first = firstArray(await listing.readRange(weights, 0, Math.min(bytes, NPZ_START)));
    return first === undefined ? {} : sizesOf(new Map([[first.name, first.shape]]), format);
  }
  if (!weights.endsWith(".safetensors")) return {};
  const read = (at: number, length: number) => listing.readRange(weights, at, at + length);
  const { tensors } = await readSafetensorsHeader(read, bytes, weights);
  const shapes = new Map([...tensors].map(([name, { shape }]) => [name, shape]));
  const told = FOLDERS.filter(({ weights: names, arrays = [] }) => {
    const isThere = names.some((name) => weights === name || weights.endsWith(`/${name}`));
    return isThere && arrays.length > 0 && arrays.every((name) => shapes.has(name));
  });
  const isOf = told.some((entry) => entry.format.name === format) ? format : (told[0]?.format.name ?? format);
  return { format: isOf, ...sizesOf(shapes, isOf) };
}

function sizesOf(shapes: ReadonlyMap<string, readonly number[]>, format: ReadFormatName): Sizes {
  for (const [name, byLatent] of ENCODERS) {
    const shape = shapes.get(name);
    if (shape?.length !== 2) continue;
    const [rows, columns] = shape as [number, number];
    const isByLatent = byLatent || format === "circuit_tracer";
    return isByLatent ? { inputs: columns, latents: rows } : { inputs: rows, latents: columns };
  }
  return {};
}

/**
 * Those that the words choose: the one that is called so; else those that have all names of the
 * words, between "/", in that order; else those whose path holds the words.
 */
export function selected(saes: readonly ListedSae[], words: string): readonly ListedSae[] {
  const wanted = words.replace(/^\.?\/+|\/+$/g, "");
  const exact = saes.filter(({ path, weights }) => path === wanted || weights === wanted);
  if (exact.length > 0) return exact;
  const names = wanted.split("/");
  const inOrder = saes.filter(({ path }) => {
    let next = 0;
    for (const name of path.split("/")) if (name === names[next]) next++;
    return next === names.length;
  });
  return inOrder.length > 0 ? inOrder : saes.filter(({ path }) => path.includes(wanted));
}

const MOST_SHOWN = 6;

/**
 * The error for a place that holds several autoencoders, or one below it. `named`: how a path below
 * the place is named; `what`: "holds", or what chooses them.
 */
export function severalSaes(
  where: string,
  named: (path: string) => string,
  found: readonly Pick<ListedSae, "path">[],
  what: string,
): SaettaError {
  const count = found.length === 1 ? "an autoencoder" : `${found.length} autoencoders`;
  return new SaettaError(`${what} ${count}: ${firstOf(found)}${beyond(found, (more) => ` and ${more} more`)}`, {
    where,
    mend: `name ${found.length === 1 ? "it" : "one"}: ${named(found[0]!.path)}`,
  });
}

/** The error for a choice that none of the autoencoders of a place fits. */
export function noneChosen(where: string, words: string, all: readonly Pick<ListedSae, "path">[]): SaettaError {
  const more = beyond(all, () => ` (${all.length}: saetta inspect ${where})`);
  return new SaettaError(`has no autoencoder ${JSON.stringify(words)}`, {
    where,
    mend: `choose one of ${firstOf(all)}${more}`,
  });
}

function firstOf(saes: readonly Pick<ListedSae, "path">[]): string {
  const shown = saes.slice(0, MOST_SHOWN).map(({ path }) => path);
  return shown.join(", ");
}

function beyond(saes: readonly unknown[], text: (more: number) => string): string {
  return saes.length > MOST_SHOWN ? text(saes.length - MOST_SHOWN) : "";
}
