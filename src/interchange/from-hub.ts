/** Autoencoders on the Hugging Face Hub: which files of a repo are one, fetched into the cache. */

import { basename, posix } from "node:path";
import { type HubAddress, hubPath, parseHubPath } from "../hub/address.ts";
import { type Hub, hubOf } from "../hub/hub.ts";
import { fetchInto, type Located, locate, nameIn } from "../hub/locate.ts";
import { HubError } from "../hub/refusals.ts";
import { SaettaError } from "../util/errors.ts";

/** Files that say what the weights are; small. Those of checkpoints of ours, too. */
const CONFIGS = ["cfg.json", "config.json", "config.yaml", "hyperparams.json", "manifest.json", "state.json"];

/** Where the weights of a folder's only autoencoder are, the first that is there. */
const WEIGHTS = [
  "sae_weights.safetensors",
  "sae.safetensors",
  "saetta.safetensors",
  "params.safetensors",
  "params.npz",
  "checkpoints/pruned.safetensors",
  "checkpoints/final.safetensors",
  "ae.pt",
];
/** Read with others: the running average of a checkpoint of ours. */
const AVERAGE = "ema.safetensors";

/** Files of weights that are no autoencoder by themselves. */
const NONE = ["sparsity.safetensors", "optimizer.safetensors", AVERAGE];

/** Whether a file may be one autoencoder of several in a folder, by its name. */
function isWeights(name: string): boolean {
  return /\.(safetensors|npz|pt|pth)$/.test(name) && !NONE.includes(posix.basename(name));
}

/**
 * Fetches what it takes to read the autoencoder that the address names, and nothing else. Returns
 * its path in the cache: a folder, or a file of weights with its config next to it. Throws
 * SaettaError with their names where there are several.
 */
export async function fetchSae(path: string, hub: Hub = hubOf()): Promise<string> {
  const address = parseHubPath(path);
  const place = await locate(hub, address);
  const names = place.files.map((file) => nameIn(place, file));
  const chosen = new Set(filesOf(address, place, names));
  const files = place.files.filter((file) => chosen.has(nameIn(place, file)));
  const found = await fetchInto(hub, place, files);
  const outer = outerConfig(place);
  if (outer !== undefined) await fetchOuter(hub, place, outer);
  return found;
}

/** The names of the files that are read, relative to the folder. */
function filesOf(address: HubAddress, { isFolder }: Located, names: readonly string[]): string[] {
  const configs = CONFIGS.filter((name) => names.includes(name));
  const file = isFolder ? undefined : basename(address.path);
  if (file !== undefined && !CONFIGS.includes(file)) return [...configs, file];
  const known = WEIGHTS.find((name) => names.includes(name));
  if (known !== undefined) return [...configs, known, ...(names.includes("manifest.json") ? [AVERAGE] : [])];
  const here = names.filter((name) => !name.includes("/") && isWeights(name));
  if (here.length === 1) return [...configs, here[0]!];
  throw several(address, isFolder ? names : here);
}

/** Llama Scope has its weights in a folder below that of its config. */
function outerConfig({ address, isFolder, folder }: Located): string | undefined {
  if (isFolder || posix.basename(folder) !== "checkpoints" || !address.path.endsWith(".safetensors")) return undefined;
  const above = posix.dirname(folder);
  return above === "." ? "hyperparams.json" : `${above}/hyperparams.json`;
}

async function fetchOuter(hub: Hub, place: Located, path: string): Promise<void> {
  await fetchInto(hub, place, [{ path, bytes: 0 }]).catch((thrown: unknown) => {
    if (!(thrown instanceof HubError) || thrown.kind !== "path") throw thrown;
  });
}

const MOST_SHOWN = 6;

/** The error for a repo or folder of many: what is below it, to be named. */
function several(address: HubAddress, names: readonly string[]): SaettaError {
  const found = [...new Set(names.filter(isWeights).map(nameOfSae))].sort((a, b) =>
    a.localeCompare(b, "en", { numeric: true }),
  );
  const where = hubPath(address);
  const [first] = found;
  if (first === undefined) {
    return new SaettaError("holds no autoencoder: no weights in safetensors, npz or torch files", {
      where,
      mend: `saetta inspect ${where}`,
    });
  }
  const shown = found.slice(0, MOST_SHOWN).join(", ");
  const more = found.length > MOST_SHOWN ? ` and ${found.length - MOST_SHOWN} more` : "";
  const folder = { ...address, path: address.path === "" ? first : `${address.path}/${first}` };
  const what = found.length === 1 ? "an autoencoder" : `${found.length} autoencoders`;
  return new SaettaError(`holds ${what}: ${shown}${more}`, {
    where,
    mend: `name ${found.length === 1 ? "it" : "one"}: ${hubPath(folder)}`,
  });
}

/** How an autoencoder is named: by its folder, or by its file where the folder has many. */
function nameOfSae(weights: string): string {
  const known = WEIGHTS.find((name) => weights === name || weights.endsWith(`/${name}`));
  return known === undefined || weights === known ? weights : weights.slice(0, -known.length - 1);
}
