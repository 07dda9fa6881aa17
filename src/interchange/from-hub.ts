/**
 * Autoencoders on the Hugging Face Hub: which of them an address names, and which files of a repo
 * they are. What is listed is not fetched.
 */

import { basename } from "node:path";
import { type HubAddress, hubPath, parseHubPath } from "../hub/address.ts";
import { snapshotPath } from "../hub/cache.ts";
import { type Hub, hubOf } from "../hub/hub.ts";
import { fetchInto, type Located, locate, nameIn } from "../hub/locate.ts";
import { type HubListing, hubListing } from "../hub/read.ts";
import { HubError } from "../hub/refusals.ts";
import { AVERAGE, MANIFEST, OPTIMIZER, STATE } from "../run-files/names.ts";
import { SaettaError } from "../util/errors.ts";
import type { ReadFormatName } from "./format.ts";
import { type ListedSae, noneChosen, saesIn, selected, severalSaes } from "./listing.ts";

export interface SaesAtHub {
  readonly place: Located;
  /** The files of the place, by paths relative to its folder. */
  readonly listing: HubListing;
  /** Those that the address names, their paths relative to the place's folder. */
  readonly saes: readonly ListedSae[];
  /** Whether the address is no path of the repo and chose among what the repo has. */
  readonly chosen: boolean;
}

/**
 * The autoencoders that the address names: those below a folder, that of a file, or, where the repo
 * has no such path, those that it chooses: `layers.10` of model/layers.10.
 */
export async function saesAtHub(address: HubAddress, hub: Hub): Promise<SaesAtHub> {
  const found = await locate(hub, address).catch((thrown: unknown) => {
    if (thrown instanceof HubError && thrown.kind === "path") return thrown;
    throw thrown;
  });
  if (!(found instanceof HubError)) {
    const listing = hubListing(hub, found);
    const saes = saesIn(await listing.entries());
    const file = basename(address.path);
    const isNamed = ({ weights, config }: ListedSae) => found.isFolder || weights === file || config === file;
    return { place: found, listing, saes: saes.filter(isNamed), chosen: false };
  }
  const place = await locate(hub, { ...address, path: "" });
  const listing = hubListing(hub, place);
  const all = saesIn(await listing.entries());
  if (all.length === 0) throw found;
  const saes = selected(all, address.path);
  if (saes.length === 0) throw noneChosen(hubPath(place.address), address.path, all);
  return { place, listing, saes, chosen: true };
}

/** Files that say what the weights are; small. Those of checkpoints of ours, too. */
const CONFIGS = ["cfg.json", "config.json", "config.yaml", "hyperparams.json", MANIFEST, STATE];

/** Formats in which a config above the folder says something of it. */
const SHARED_CONFIG: readonly ReadFormatName[] = ["sparsify", "dictionary_learning"];

/** Files of weights that are no autoencoder by themselves. */
const NONE = ["sparsity.safetensors", OPTIMIZER, AVERAGE];

/**
 * Fetches what it takes to read the autoencoder that the address names, and nothing else. Returns
 * its path in the cache: a folder, or a file of weights with its config next to it. Throws
 * SaettaError with their names where there are several.
 */
export async function fetchSae(path: string, hub: Hub = hubOf()): Promise<string> {
  const address = parseHubPath(path);
  const { place, saes, chosen } = await saesAtHub(address, hub);
  const [only, ...more] = saes;
  const isIt = only !== undefined && more.length === 0 && (chosen || !place.isFolder || only.path === "");
  if (only !== undefined && !isIt) {
    const named = (below: string) => hubPath({ ...place.address, path: joined(place.folder, below) });
    throw severalSaes(
      hubPath(place.address),
      named,
      saes,
      chosen ? `${JSON.stringify(address.path)} chooses` : "holds",
    );
  }
  if (only === undefined) return fetchUnlisted(hub, place);
  const names = place.files.map((file) => nameIn(place, file));
  const folder = only.config === undefined ? only.weights.split("/").slice(0, -1).join("/") : parentOf(only.config);
  const wanted = new Set([only.weights, ...CONFIGS.map((name) => joined(folder, name))]);
  if (names.includes(joined(folder, MANIFEST))) wanted.add(joined(folder, AVERAGE));
  await fetchNamed(hub, place, wanted);
  if (SHARED_CONFIG.includes(only.format)) await fetchOuterConfigs(hub, place, joined(place.folder, folder));
  return snapshotPath(
    hub.cache,
    place.address,
    place.commit,
    place.isFolder ? joined(place.folder, only.path) : place.address.path,
  );
}

/** Weights whose name says nothing: a file that is named, or the only one of a folder. */
async function fetchUnlisted(hub: Hub, place: Located): Promise<string> {
  const { address, isFolder } = place;
  const names = place.files.map((file) => nameIn(place, file));
  const here = names.filter((name) => /^[^/]+\.(safetensors|npz|pt|pth)$/.test(name) && !NONE.includes(name));
  const file = isFolder ? here[0] : basename(address.path);
  if (file === undefined) {
    throw new SaettaError("holds no autoencoder: no weights in safetensors, npz or torch files", {
      where: hubPath(address),
      mend: `saetta inspect ${hubPath(address)}`,
    });
  }
  if (isFolder && here.length > 1) {
    const named = (below: string) => hubPath({ ...address, path: joined(place.folder, below) });
    const found = here.map((path) => ({ path }));
    throw severalSaes(hubPath(address), named, found, "holds");
  }
  const found = await fetchNamed(hub, place, new Set([...CONFIGS, file]));
  await fetchOuterConfigs(hub, place, place.folder);
  return found;
}

/**
 * Fetches the configs of the folder above that of the weights, where there are some: Llama Scope
 * has its own there, a run of sparsify and a checkpoint of dictionary_learning what holds for all.
 */
async function fetchOuterConfigs(hub: Hub, place: Located, folder: string): Promise<void> {
  if (place.cached || folder === "") return;
  for (const name of ["hyperparams.json", "config.json"]) {
    const path = joined(parentOf(folder), name);
    await fetchInto(hub, place, [{ path, bytes: 0 }]).catch((thrown: unknown) => {
      if (!(thrown instanceof HubError) || thrown.kind !== "path") throw thrown;
    });
  }
}

function fetchNamed(hub: Hub, place: Located, wanted: ReadonlySet<string>): Promise<string> {
  return fetchInto(
    hub,
    place,
    place.files.filter((file) => wanted.has(nameIn(place, file))),
  );
}

const parentOf = (path: string): string => path.split("/").slice(0, -1).join("/");

/** Two paths in a repo, one below the other; "" is its root. */
function joined(folder: string, below: string): string {
  return [folder, below].filter((each) => each !== "").join("/");
}
