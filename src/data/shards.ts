/** The files behind what a user names: a file, a folder of shards, or a quoted pattern. */

import type { Dirent } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { cannotOpen, noParquet } from "../formats/open-file.ts";
import { isHubPath } from "../hub/address.ts";
import { FormatError, hasCode, SaettaError } from "../util/errors.ts";
import { Fields, readJsonFile } from "../util/json.ts";
import {
  DICT,
  INDEX,
  isActivationsName,
  isDataset,
  isParquet,
  kindOf,
  matches,
  natural,
  noActivations,
  STATE,
  severalKinds,
  UNJOINED,
} from "./file-names.ts";

/** Files, and what is to be said of them. */
export interface Files {
  readonly files: readonly string[];
  readonly notes: readonly string[];
}

/**
 * The files of `path`, in natural order (shard-2 before shard-10): of a folder all that are
 * activations by their names, of one kind; of a name with * or ? in its last part all that match,
 * unless a file has that very name; else the path itself. What is on the Hub is fetched first.
 * Throws SaettaError when there are none, or kinds are mixed.
 */
export async function filesOf(path: string, dataset?: string): Promise<Files> {
  if (isHubPath(path)) return filesOf(await (await import("./from-hub.ts")).fetchActivations(path), dataset);
  const found = await stat(path).catch((cause: unknown) => {
    if (hasCode(cause, "ENOENT", "ENOTDIR")) return undefined;
    throw cannotOpen(path, cause);
  });
  if (found?.isDirectory()) return shards(path, dataset);
  if (found !== undefined && path.endsWith(INDEX)) return plain(await indexed(path, dataset));
  const pattern = basename(path);
  if (found !== undefined || !/[*?]/.test(pattern)) return plain([path]);
  const folder = dirname(path);
  const names = await readdir(folder).catch((cause: unknown) => {
    throw cannotOpen(folder, cause);
  });
  const matching = natural(names.filter((name) => matches(name, pattern)));
  if (matching.length > 0) return plain(matching.map((name) => (path === pattern ? name : join(folder, name))));
  throw new SaettaError("no file matches", {
    where: path,
    mend: "check the pattern (* and ? stand for any characters in the file's name)",
  });
}

const plain = (files: readonly string[]): Files => ({ files, notes: [] });

/**
 * Whether a folder of this content is taken for activations, or for something that must be said of
 * them.
 */
export async function holdsActivations(folder: string): Promise<boolean> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((): Dirent[] => []);
  const names = entries.map(({ name }) => name);
  if (isDataset(names) || names.includes(DICT) || names.some((name) => isActivationsName(name) || isParquet(name)))
    return true;
  return (await datasetsIn(folder, entries)).length > 0;
}

async function shards(folder: string, dataset: string | undefined): Promise<Files> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((cause: unknown) => {
    throw cannotOpen(folder, cause);
  });
  if (isDataset(entries.map(({ name }) => name))) return plain(await datasetFiles(folder));
  const names = natural(
    entries.filter((entry) => !entry.isDirectory() && isActivationsName(entry.name)).map(({ name }) => name),
  );
  const kinds = new Set(names.map(kindOf));
  if (names.length === 0) {
    if (entries.some(({ name }) => isParquet(name))) throw noParquet(folder);
    const datasets = await datasetsIn(folder, entries);
    if (datasets.length > 0) return joinedDatasets(folder, entries, datasets);
    throw noActivations(folder);
  }
  if (kinds.size > 1) throw severalKinds(folder, names);
  for (const { name } of entries) {
    if (!name.endsWith(INDEX)) continue;
    const files = await indexed(join(folder, name), dataset);
    if (dataset !== undefined) return plain(files);
  }
  return {
    files: names.map((name) => join(folder, name)),
    notes: missingParts(names).map((each) => `${folder}: ${each}`),
  };
}

/** What the names "model-00001-of-00003.safetensors" say of files that are not there. */
function missingParts(names: readonly string[]): string[] {
  const parts = names.flatMap((name) => {
    const [, stem, number, of] = /^(.*?)(\d{1,9})-of-(\d{1,9})\.[^.]+$/.exec(name) ?? [];
    return number === undefined ? [] : [{ group: `${stem}*-of-${of}`, number: Number(number), of: Number(of) }];
  });
  return [...new Set(parts.map(({ group }) => group))].flatMap((group) => {
    const found = parts.filter((part) => part.group === group);
    const missing = found[0]!.of - new Set(found.map(({ number }) => number)).size;
    return missing > 0
      ? [`${missing} of the ${found[0]!.of} files ${group} ${missing === 1 ? "is" : "are"} not there`]
      : [];
  });
}

/**
 * The files that an index names, each of which must be there; those with the tensor `dataset`,
 * where it is given and in the index.
 */
async function indexed(path: string, dataset: string | undefined): Promise<string[]> {
  const map = new Fields(await readJsonFile(path), "the index", path).fields("weight_map");
  const named = Object.keys(map.object).map((tensor) => ({ tensor, file: plainName(map.string(tensor), path) }));
  if (named.length === 0) throw new FormatError('"weight_map" names no file', { where: path });
  const files = natural([...new Set(named.map(({ file }) => file))]);
  const there = new Set(await readdir(dirname(path)).catch((): string[] => []));
  const missing = files.filter((file) => !there.has(file));
  if (missing.length > 0) {
    throw new FormatError(`names ${listed(missing)}, which ${missing.length === 1 ? "is" : "are"} not there`, {
      where: path,
      mend: "copy or download the files again",
    });
  }
  const chosen = new Set(named.filter(({ tensor }) => tensor === dataset).map(({ file }) => file));
  return (chosen.size === 0 ? files : files.filter((file) => chosen.has(file))).map((file) =>
    join(dirname(path), file),
  );
}

function listed(names: readonly string[]): string {
  const shown = names.slice(0, 4).join(", ");
  return names.length > 4 ? `${shown} and ${names.length - 4} more` : shown;
}

/** A file's name without any folder. Throws FormatError for others. */
function plainName(name: string, where: string): string {
  if (name === "" || name === "." || name === ".." || basename(name) !== name || name.includes("\0"))
    throw new FormatError(`names ${JSON.stringify(name)}, which is no file of the folder`, { where });
  return name;
}

/** The files of a Hugging Face dataset, in the order that it gives. */
async function datasetFiles(folder: string): Promise<string[]> {
  const where = join(folder, STATE);
  const state = new Fields(await readJsonFile(where), STATE, where);
  const listed = state.get("_data_files");
  if (!Array.isArray(listed) || listed.length === 0) throw new FormatError('"_data_files" names no file', { where });
  const indices = state.get("_indices_data_files");
  if (Array.isArray(indices) && indices.length > 0) {
    throw new FormatError("is a choice of the rows of its files, in an order of its own, which is not read", {
      where,
      mend: "save it after flatten_indices()",
    });
  }
  return listed.map((entry) => {
    return join(folder, plainName(new Fields(entry, "an entry of _data_files", where).string("filename"), where));
  });
}

/**
 * The files of several datasets: the splits of a DatasetDict, of which one must be named, or the
 * parts of a cache that SAELens has not joined (.tmp_shards/shard_00000, ...).
 */
async function joinedDatasets(folder: string, entries: readonly Dirent[], datasets: readonly string[]): Promise<Files> {
  const isDict = entries.some(({ name }) => name === DICT);
  const arePart = datasets.every((path) => /^[a-z]+[-_]?\d+$/i.test(basename(path)));
  if (datasets.length > 1 && (isDict || !arePart)) {
    throw new SaettaError(
      `holds ${isDict ? "splits" : "datasets"} ${listed(datasets.map((path) => basename(path)))}: name one`,
      { where: folder, mend: `such as ${datasets.at(-1)}` },
    );
  }
  const files = (await Promise.all(datasets.map(datasetFiles))).flat();
  const around = basename(folder) === UNJOINED ? folder : dirname(datasets[0]!);
  if (basename(around) !== UNJOINED) return plain(files);
  const all = await readdir(around).catch((): string[] => []);
  const broken = all.filter((name) => !datasets.some((path) => basename(path) === name));
  const left =
    broken.length === 0 ? "" : `; ${listed(broken)} ${broken.length === 1 ? "is" : "are"} not complete and left out`;
  return {
    files,
    notes: [`${folder} is a cache whose making was interrupted: ${datasets.length} parts are read${left}`],
  };
}

/** The folders in it that are datasets. */
async function datasetsIn(folder: string, entries: readonly Dirent[]): Promise<string[]> {
  const found: string[] = [];
  if (entries.some((entry) => entry.isDirectory() && entry.name === UNJOINED)) {
    const inside = join(folder, UNJOINED);
    const parts = await readdir(inside, { withFileTypes: true }).catch((): Dirent[] => []);
    return datasetsIn(
      inside,
      parts.filter(({ name }) => name !== UNJOINED),
    );
  }
  for (const name of natural(entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name))) {
    const names = await readdir(join(folder, name)).catch((): string[] => []);
    if (isDataset(names)) found.push(join(folder, name));
  }
  return found;
}
