/** Activations on the Hugging Face Hub: which files an address means, fetched into the cache. */

import { basename, dirname, join } from "node:path";
import { noParquet } from "../formats/open-file.ts";
import { type HubAddress, hubPath, parseHubPath } from "../hub/address.ts";
import { snapshotPath } from "../hub/cache.ts";
import { type Hub, hubOf } from "../hub/hub.ts";
import { fetchInto, type Located, locate, nameIn } from "../hub/locate.ts";
import { SaettaError } from "../util/errors.ts";
import {
  DICT,
  INDEX,
  INFO,
  isActivationsName,
  isDataset,
  isParquet,
  kindOf,
  matches,
  noActivations,
  STATE,
  severalKinds,
} from "./file-names.ts";

/**
 * Fetches the activations that the address names: a file, the files of a folder, or those that a
 * pattern in the last part of the path means. Returns their path in the cache, to be read like any
 * other. Throws FormatError for Parquet, SaettaError where there are none; before anything large is
 * fetched.
 */
export async function fetchActivations(path: string, hub: Hub = hubOf()): Promise<string> {
  const address = parseHubPath(path);
  const pattern = basename(address.path);
  if (/[*?]/.test(pattern)) return fetchMatching(hub, address, pattern);
  const place = await locate(hub, address);
  const names = place.files.map((file) => nameIn(place, file));
  const here = names.filter((name) => !name.includes("/"));
  if (!place.isFolder) return fetchNamed(hub, place, [basename(address.path), ...companions(address.path, here)]);

  const held = here.filter(isActivationsName);
  if (new Set(held.map(kindOf)).size > 1) throw severalKinds(hubPath(address), held);
  const isInfo = (name: string) => [STATE, INFO, DICT].includes(name) || name.endsWith(INDEX) || isMeta(name);
  if (held.length > 0) return fetchNamed(hub, place, [...here.filter(isInfo), ...held]);
  const below = datasetsIn(names);
  if (below.length === 1)
    return fetchNamed(
      hub,
      place,
      names.filter((name) => name === DICT || dirname(name) === below[0]),
    );
  if (below.length > 1) {
    throw new SaettaError(`holds ${here.includes(DICT) ? "splits" : "datasets"} ${shown(below)}: name one`, {
      where: hubPath(address),
      mend: `such as ${within(address, below.at(-1)!)}`,
    });
  }
  if (names.some(isParquet)) throw noParquet(hubPath(address), `"${address.name}"`);
  throw nothingHere(address, names);
}

/** The names that matter next to a file that is named itself. */
function companions(path: string, here: readonly string[]): string[] {
  if (path.endsWith(INDEX)) return here.filter((name) => name.endsWith(".safetensors"));
  const stem = basename(path).replace(/\.[^.]+$/, "");
  return here.filter((name) => name === `${stem}.meta.json`);
}

const isMeta = (name: string): boolean => name.endsWith(".meta.json");

async function fetchMatching(hub: Hub, address: HubAddress, pattern: string): Promise<string> {
  const folder = address.path.includes("/") ? dirname(address.path) : "";
  const place = await locate(hub, { ...address, path: folder });
  const names = place.files.map((file) => nameIn(place, file)).filter((name) => matches(name, pattern));
  const found = names.filter((name) => !name.includes("/"));
  if (found.length === 0) {
    throw new SaettaError("no file matches", {
      where: hubPath(address),
      mend: "check the pattern (* and ? stand for any characters in the file's name)",
    });
  }
  await fetchNamed(hub, place, found);
  return join(snapshotPath(hub.cache, address, place.commit, folder), pattern);
}

async function fetchNamed(hub: Hub, place: Located, names: readonly string[]): Promise<string> {
  const { address } = place;
  const parquet = names.find(isParquet);
  if (parquet !== undefined) throw noParquet(hubPath(address), `"${address.name}"`);
  const wanted = new Set(names);
  return fetchInto(
    hub,
    place,
    place.files.filter((file) => wanted.has(nameIn(place, file))),
  );
}

/** The folders in it that save_to_disk wrote. */
function datasetsIn(names: readonly string[]): string[] {
  const folders = new Map<string, string[]>();
  for (const name of names) {
    const [folder, file, ...deeper] = name.split("/");
    if (file !== undefined && deeper.length === 0) folders.set(folder!, [...(folders.get(folder!) ?? []), file]);
  }
  return [...folders].filter(([, files]) => isDataset(files)).map(([folder]) => folder);
}

function nothingHere(address: HubAddress, names: readonly string[]): SaettaError {
  const elsewhere = [...new Set(names.filter(isActivationsName).map((name) => dirname(name)))];
  if (elsewhere.length === 0) return noActivations(hubPath(address));
  return new SaettaError(`has its files of activations in ${shown(elsewhere)}`, {
    where: hubPath(address),
    mend: `name one of them: ${within(address, elsewhere[0]!)}`,
  });
}

function within(address: HubAddress, name: string): string {
  return hubPath({ ...address, path: address.path === "" ? name : `${address.path}/${name}` });
}

function shown(names: readonly string[]): string {
  const first = names.slice(0, 4).join(", ");
  return names.length > 4 ? `${first} and ${names.length - 4} more` : first;
}
