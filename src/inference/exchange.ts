/** Autoencoders out to the files of other programs, and in from them. */

import { readdir, rename, rm, rmdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { writeFile } from "../checkpoint/commit.ts";
import { weightsFile } from "../checkpoint/layout.ts";
import { disk } from "../checkpoint/storage.ts";
import type { Exchanged, FormatName, OutputFile, ReadFormatName, Rules, WriteOptions } from "../interchange/format.ts";
import { findForeign, formatNamed, openForeign } from "../interchange/index.ts";
import { isSet, refuseUnset } from "../interchange/selection.ts";
import { sparsifyWeights } from "../interchange/sparsify.ts";
import { jsonFile } from "../interchange/tensors.ts";
import { CFG, LABELS, MANIFEST } from "../run-files/names.ts";
import { kOf } from "../sae/architectures/index.ts";
import { descriptionJson, paramNames, type SaeDescription } from "../sae/description.ts";
import { hasCode, messageOf, SaettaError, UsageError } from "../util/errors.ts";
import { makeFolders } from "../util/folders.ts";
import { labelsOf } from "./labels.ts";
import { loadFound } from "./sae.ts";
import { type Comparison, compare, exactEngine, rowsToCompare } from "./verify.ts";
import { type FoundSae, findSae, readParam, type WeightsKind } from "./weights.ts";

export interface Exchange {
  /** The folder that was written. */
  readonly out: string;
  readonly files: readonly string[];
  readonly format: ReadFormatName;
  readonly description: SaeDescription;
  /** Which weights these are: the running average ("ema") or those of the last step ("raw"). */
  readonly weights: WeightsKind;
  /** What is not carried over, or was folded. */
  readonly notes: readonly string[];
  /** Where it was asked for. */
  readonly verified?: Comparison;
}

interface VerifyOptions {
  /**
   * Compare rows through the file's own rules with the autoencoder's, before anything is left on
   * the disk.
   */
  readonly verify?: boolean | undefined;
  /** Activations to compare with; default: random rows. */
  readonly data?: readonly string[] | undefined;
}

export interface ExportOptions extends VerifyOptions, Partial<WriteOptions> {
  readonly format: FormatName;
  /** The folder to write; it must not exist, or be empty. */
  readonly out: string;
  /** Default: the running average where training kept one. */
  readonly weights?: WeightsKind | undefined;
  readonly k?: number | undefined;
}

/**
 * Writes an autoencoder (whatever `loadSae` reads) in the format of another program. Rejects with
 * UsageError, with the reason and the flag that helps, where that format cannot say what was
 * trained; with SaettaError when the comparison fails.
 */
export async function exportSae(path: string, options: ExportOptions): Promise<Exchange> {
  const { format, out, weights, verify = false, data = [], inexact = false, bare = false, k, ...names } = options;
  const found = await findSae(path, weights, { k });
  const { description } = found;
  const sae: Exchanged = { description, read: (name) => readParam(found, name) };
  const dtype = await dtypeOf(sae);
  // Whatever the format calls it, nothing is written that says nothing of which latents are active.
  if (paramNames(description).includes("cut") && !isSet(await sae.read("cut"))) refuseUnset(found.path);
  const { files: weightFiles, notes: lost } = await formatNamed(format).write(sae, dtype, { ...names, inexact, bare });
  const files = [...weightFiles, ...(await labelFiles(found))];
  const passedOver = found.refusals.map(({ error }) => `passed over a damaged checkpoint: ${error.message}`);
  const notes = [...passedOver, ...(found.notes ?? []), ...lost, ...exportNotes(description, bare)];
  const done = { out, files: files.map(({ name }) => name), format, description, weights: found.weights, notes };
  let verified: Comparison | undefined;
  await writeFolder(out, files, async (folder) => {
    if (!verify) return;
    const written = new Set(weightFiles.map(({ name }) => name));
    const there = await findForeign(folder, written);
    const told = { k: bare ? kOf(description.spec) : undefined };
    const rules = await formatNamed(format).rules(there?.place ?? { folder, names: written, file: undefined }, told);
    // What --inexact accepts is not held against the file.
    verified = await comparison(found, rules, out, data, inexact);
  });
  return verified === undefined ? done : { ...done, verified };
}

/** The labels of an autoencoder as a file next to the written one; none where it has none. */
async function labelFiles(found: FoundSae): Promise<OutputFile[]> {
  const { lines } = await labelsOf(found);
  if (lines.length === 0) return [];
  const text = lines.map((line) => `${JSON.stringify(line)}\n`).join("");
  return [{ name: LABELS, content: (write) => write(Buffer.from(text)) }];
}

/** What holds every array exactly. */
async function dtypeOf(sae: Exchanged): Promise<"f32" | "f64"> {
  for (const name of paramNames(sae.description)) if ((await sae.read(name)) instanceof Float64Array) return "f64";
  return "f32";
}

function exportNotes({ spec }: SaeDescription, bare: boolean): string[] {
  return bare
    ? [`the file does not say that k is ${kOf(spec)}, nor that rows are taken as they are: tell whoever reads it`]
    : [];
}

export interface ImportOptions extends VerifyOptions {
  readonly out: string;
  /** Active latents per row, where the file does not say it. */
  readonly k?: number | undefined;
}

/**
 * Writes what another program's file holds as a folder of ours, cfg.json and weights. Rejects with
 * FormatError for a file that is damaged or computes what Saetta does not.
 */
export async function importSae(path: string, { out, k, verify = false, data = [] }: ImportOptions): Promise<Exchange> {
  const found = await findSae(path, undefined, { k });
  const { foreign: there, path: folder } = found;
  const place = there ?? (await sparsifyIn(folder));
  if (place === undefined) {
    throw new UsageError("is an autoencoder of Saetta already", {
      where: path,
      mend: "use it as it is, or write it for others with saetta export",
    });
  }
  const sae = await openForeign(place, { k });
  try {
    const { description, format, notes } = sae;
    const dtype = await dtypeOf(sae);
    const files = [
      jsonFile(CFG, descriptionJson(description)),
      sparsifyWeights(weightsFile(description), sae, dtype),
      ...(await labelFiles(found)),
    ];
    const done = { out, files: files.map(({ name }) => name), format, description, weights: "raw" as const, notes };
    let verified: Comparison | undefined;
    await writeFolder(out, files, async (written) => {
      if (!verify) return;
      verified = await comparison(await findSae(written), await place.format.rules(place.place, { k }), out, data);
    });
    return verified === undefined ? done : { ...done, verified };
  } finally {
    await sae.close();
  }
}

/** sparsify's layout is ours too: a folder of it that no checkpoint is. */
async function sparsifyIn(folder: string): ReturnType<typeof findForeign> {
  const names = new Set(await disk.list(folder));
  return names.has(MANIFEST) ? undefined : findForeign(folder, names);
}

async function comparison(
  found: FoundSae,
  rules: Rules,
  where: string,
  data: readonly string[],
  undoneWithStd = false,
): Promise<Comparison> {
  await using engine = await exactEngine();
  await using sae = await loadFound(found, found.path, { engine, undoneWithStd });
  return await compare(rules, sae, await rowsToCompare(sae, await readParam(found, "preBias"), data), where);
}

/**
 * Writes the files as the folder `out`, whole or not at all; `check` may refuse it while it still
 * has another name.
 */
async function writeFolder(
  out: string,
  files: readonly OutputFile[],
  check: (folder: string) => Promise<void>,
): Promise<void> {
  const inIt = await readdir(out).catch((thrown: unknown) => {
    if (hasCode(thrown, "ENOENT")) return undefined;
    throw unwritable(out, thrown);
  });
  if (inIt !== undefined && inIt.length > 0)
    throw new SaettaError("exists already", { where: out, mend: "choose another --out" });
  const parent = dirname(out);
  await makeFolders(parent).catch((thrown: unknown) => {
    throw unwritable(parent, thrown);
  });
  const aside = `${out.replace(/\/+$/, "")}.aside-${process.pid}`;
  await disk.makeFolder(aside);
  try {
    for (const { name, content } of files) await writeFile(join(aside, name), content);
    await disk.syncFolder(aside);
    await check(aside);
    if (inIt !== undefined) await rmdir(out);
    await rename(aside, out).catch((thrown: unknown) => {
      throw unwritable(out, thrown);
    });
    await disk.syncFolder(parent);
  } catch (thrown) {
    await rm(aside, { recursive: true, force: true });
    throw thrown;
  }
}

function unwritable(path: string, cause: unknown): SaettaError {
  return new SaettaError(`could not be written (${messageOf(cause)})`, {
    where: path,
    cause,
    mend: "choose another --out",
  });
}
