/**
 * Autoencoders in the folders below one that is none: the hook points of a repository, the trainers
 * of a sweep, runs; and the choice of one of them.
 */

import { stat } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { folderListing, type ListedFile, type Listing } from "../formats/listing.ts";
import { type ListedSae, noneChosen, saesIn, selected, severalSaes, withSizes } from "../interchange/listing.ts";
import { CHECKPOINTS, MANIFEST, METRICS } from "../run-files/names.ts";

/** A run of Saetta, or an autoencoder of another program. */
export type Below = { readonly path: string; readonly format: "saetta" } | ListedSae;

/** The autoencoders of a listing but that of its root, in the order of their numbers. */
async function below(listing: Listing): Promise<readonly Below[]> {
  const files = await listing.entries();
  const runs = [...new Set(files.flatMap(runOf))];
  const isInRun = ({ path }: ListedFile) => runs.some((run) => path.startsWith(`${run}/`));
  const found = [
    ...runs.map((path) => ({ path, format: "saetta" as const })),
    ...saesIn(files.filter((file) => !isInRun(file))),
  ];
  return found.filter(({ path }) => path !== "").sort((a, b) => a.path.localeCompare(b.path, "en", { numeric: true }));
}

/** The folder of the run that a file tells of. */
function runOf({ path }: ListedFile): string[] {
  const names = path.split("/");
  if (names.at(-1) === METRICS && names.length > 1) return [names.slice(0, -1).join("/")];
  const isManifest = names.at(-1) === MANIFEST && names.at(-3) === CHECKPOINTS && names.length > 3;
  return isManifest ? [names.slice(0, -3).join("/")] : [];
}

/** Throws SaettaError that names the autoencoders below the folder, where there are some. */
export async function refuseFolderOfSaes(root: string): Promise<void> {
  const found = await below(folderListing(root));
  if (found.length > 0) throw severalSaes(root, (name) => join(root, name), found, "holds");
}

/**
 * The autoencoders below a folder with their sizes, where there are any; of a path that is not
 * there, those below the nearest folder that the rest of the path chooses.
 */
export async function listBelow(path: string): Promise<{ readonly root: string; readonly saes: readonly Below[] }> {
  const { root, listing, found } = await matching(path);
  const foreign = found.filter((each): each is ListedSae => each.format !== "saetta");
  const sized = new Map((await withSizes(listing, foreign)).map((sae) => [sae.path, sae]));
  return { root, saes: found.map((each) => sized.get(each.path) ?? each) };
}

/**
 * The one autoencoder that a path chooses which is not there: `repo/layers.10` of
 * repo/model/layers.10, or `repo/layer_3/width_16k`. undefined where no folder above the path has
 * any. Throws SaettaError where the path chooses none of those that there are, or several.
 */
export async function chosenBelow(path: string): Promise<string | undefined> {
  const { root, all, found } = await matching(path);
  const [only, ...more] = found;
  if (only !== undefined && more.length === 0) return join(root, only.path);
  if (only !== undefined)
    throw severalSaes(root, (name) => join(root, name), found, `${JSON.stringify(relative(root, path))} chooses`);
  if (all.length === 0) return undefined;
  const words = relative(resolve(root), resolve(path));
  throw noneChosen(root, words, all);
}

interface Matching {
  readonly root: string;
  readonly listing: Listing;
  readonly all: readonly Below[];
  readonly found: readonly Below[];
}

async function matching(path: string): Promise<Matching> {
  const root = await nearestFolder(path);
  const listing = folderListing(root ?? path);
  if (root === undefined) return { root: path, listing, all: [], found: [] };
  const all = await below(listing);
  const words = relative(resolve(root), resolve(path));
  if (words === "") return { root, listing, all, found: all };
  const chosen = new Set(
    selected(
      all.map((each) => ({ weights: "", bytes: 0, ...each }) as ListedSae),
      words,
    ).map((each) => each.path),
  );
  return { root, listing, all, found: all.filter((each) => chosen.has(each.path)) };
}

/**
 * The innermost folder of the path that is there; undefined for that of the whole disk, the home
 * folder and the working folder, whose trees are not searched because of a wrong name.
 */
async function nearestFolder(path: string): Promise<string | undefined> {
  for (let folder = path; ; folder = dirname(folder)) {
    const found = await stat(folder).catch(() => undefined);
    if (found?.isDirectory() === true) {
      const isTooWide = [dirname(resolve(folder)), process.cwd(), process.env.HOME].includes(resolve(folder));
      return folder !== path && isTooWide ? undefined : folder;
    }
    if (found !== undefined || dirname(folder) === folder) return undefined;
  }
}
