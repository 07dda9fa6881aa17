/** What `saetta inspect` says of a repo on the Hugging Face Hub. No weights are fetched. */

import { isActivationsName, isParquet } from "../data/file-names.ts";
import { noParquet } from "../formats/open-file.ts";
import { type HubAddress, hubPath, parseHubPath } from "../hub/address.ts";
import { type Hub, hubOf } from "../hub/hub.ts";
import { type Located, locate, nameIn } from "../hub/locate.ts";
import { saesAtHub } from "../interchange/from-hub.ts";
import { type ListedSae, withSizes } from "../interchange/listing.ts";
import { SaettaError } from "../util/errors.ts";
import { counted } from "../util/format.ts";
import type { Facts, Inspection } from "./inspection.ts";

/**
 * The autoencoders that an address names, with their sizes, from names, configs and headers of
 * weights; of a dataset its files of activations. Throws HubError where the address names nothing.
 */
export async function inspectHub(path: string, hub: Hub = hubOf()): Promise<Inspection> {
  const address = parseHubPath(path);
  if (address.kind === "dataset") return inspectFiles(address, await locate(hub, address));
  const { place, listing, saes } = await saesAtHub(address, hub);
  if (saes.length === 0) return inspectFiles(address, place);
  const looked = await withSizes(listing, saes.slice(0, MOST_SIZED));
  const sized = [...looked, ...saes.slice(MOST_SIZED)];
  const [only] = sized;
  const named = (sae: ListedSae): string => hubPath({ ...place.address, path: below(place, sae.path) });
  if (sized.length === 1) {
    return {
      path: place.isFolder ? named(only!) : path,
      ...{ kind: `autoencoder of ${only!.format} on the Hub`, bytes: only!.bytes },
      facts: {
        commit: place.commit,
        ...factsOf(only!, address.name),
        files: [only!.config, only!.weights].filter(isText),
      },
      ...adviceOf(place),
    };
  }
  return {
    path: hubPath(place.address),
    kind: `repository of ${sized.length} autoencoders`,
    facts: {
      commit: place.commit,
      autoencoders: sized.map((sae) => ({
        path: sae.path,
        format: sae.format,
        ...factsOf(sae, address.name),
        bytes: sae.bytes,
      })),
    },
    ...adviceOf(
      place,
      `name one: ${named(only!)}, or choose with --select`,
      ...(sized.length > MOST_SIZED ? [`sizes are read of the first ${MOST_SIZED}; name a folder for others`] : []),
    ),
  };
}

/** A request each, of which the Hub answers some thousands in five minutes. */
const MOST_SIZED = 500;

const isText = (text: string | undefined): text is string => text !== undefined;

/**
 * `repo`: Qwen-Scope says the L0 of all its files in its name, SAE-Res-Qwen3-8B-Base-W64K-L0_50.
 */
function factsOf({ inputs, latents, l0 }: ListedSae, repo: string): Facts {
  const [, ofRepo] = /[-_]L0_([1-9]\d{0,8})$/.exec(repo) ?? [];
  return { inputs, latents, l0: l0 ?? (ofRepo === undefined ? undefined : Number(ofRepo)) };
}

function below({ folder }: Located, path: string): string {
  return [folder, path].filter((each) => each !== "").join("/");
}

const MOST_FILES = 200;

function inspectFiles(address: HubAddress, place: Located): Inspection {
  const files = place.files
    .map((file) => ({ path: nameIn(place, file), bytes: file.bytes }))
    .filter(({ path }) => place.isFolder || path === address.path.split("/").at(-1));
  const held = files.filter(({ path }) => isActivationsName(path));
  if (held.length === 0 && files.some(({ path }) => isParquet(path)))
    throw noParquet(hubPath(address), `"${address.name}"`);
  const listed = (held.length > 0 ? held : files).toSorted((a, b) =>
    a.path.localeCompare(b.path, "en", { numeric: true }),
  );
  if (listed.length === 0) throw new SaettaError("has no files", { where: hubPath(address) });
  const noun = held.length > 0 ? " of activations" : ", no autoencoders or activations by their names";
  const more = listed.length > MOST_FILES ? [`${listed.length - MOST_FILES} more files`] : [];
  return {
    path: hubPath(address),
    kind: `${counted(listed.length, "file")}${noun}`,
    bytes: listed.reduce((sum, { bytes }) => sum + bytes, 0),
    facts: { commit: place.commit, files: listed.slice(0, MOST_FILES) },
    ...adviceOf(place, ...more),
  };
}

function adviceOf({ cached, unsafe }: Located, ...advice: readonly string[]): { readonly advice?: readonly string[] } {
  const all = [
    ...advice,
    ...(cached ? ["only what is in the cache is listed"] : []),
    ...(unsafe > 0 ? [`${unsafe} names that are no safe paths are left out`] : []),
  ];
  return all.length === 0 ? {} : { advice: all };
}
