/**
 * What a file or folder is: everything that Saetta reads or writes, recognised by what is in it.
 */

import { readFile, stat } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { checkpointsFolder, isRunFolder, savedSteps, weightsFile } from "../checkpoint/layout.ts";
import { openCheckpoint } from "../checkpoint/load.ts";
import { disk } from "../checkpoint/storage.ts";
import type { OpenOptions } from "../data/open.ts";
import { holdsActivations } from "../data/shards.ts";
import { readLabels } from "../explorer/labels-file.ts";
import { openArrow } from "../formats/arrow.ts";
import { openHdf5 } from "../formats/hdf5-read.ts";
import { openNpy } from "../formats/npy.ts";
import { firstBytes, formatOf, noParquet } from "../formats/open-file.ts";
import { openSafetensors } from "../formats/safetensors.ts";
import { isHubPath } from "../hub/address.ts";
import { listBelow } from "../inference/find-below.ts";
import { isForeign, namesForeign } from "../interchange/index.ts";
import { readDescription } from "../interchange/sparsify.ts";
import { checkExternalData } from "../language-model/external-data.ts";
import { parseOnnx } from "../language-model/onnx-graph.ts";
import { loadTokenizer } from "../language-model/tokenizer.ts";
import type { Report } from "../run-files/metrics.ts";
import {
  AVERAGE,
  CFG,
  CHECKPOINTS,
  CONFIG,
  LABELS,
  MANIFEST,
  METRICS,
  OWN_WEIGHTS,
  stepName,
  WEIGHTS,
} from "../run-files/names.ts";
import { architectureNamed } from "../sae/architectures/index.ts";
import { parseDescription, type SaeDescription } from "../sae/description.ts";
import { FormatError, hasCode, messageOf, SaettaError } from "../util/errors.ts";
import { asObject, type Json, type JsonObject, readJsonFile, snakeCase } from "../util/json.ts";
import { activationShards, activationsIn } from "./activations.ts";
import { inspectForeign, inspectNpz, inspectTorch, sizesOf } from "./foreign.ts";
import type { Fact, Facts, FileContents, Inspection } from "./inspection.ts";

/**
 * Looks at one file or folder, or at the shards of a folder or a quoted pattern together.
 * `options`: how the activations in a file are read. Throws FormatError when it is damaged or of no
 * kind that Saetta knows, SaettaError when it cannot be read.
 */
export async function inspect(path: string, options: OpenOptions = {}): Promise<Inspection> {
  if (isHubPath(path)) return (await import("./hub.ts")).inspectHub(path);
  const found = await stat(path).catch((cause: unknown) => {
    if (hasCode(cause, "ENOENT")) return /[*?]/.test(basename(path)) ? undefined : ("missing" as const);
    throw new SaettaError(`cannot be read (${messageOf(cause)})`, { where: path, cause });
  });
  if (found === undefined) return inspectShards(path, options);
  if (found === "missing") {
    const many = await folderOfSaes(path);
    if (many !== undefined) return many;
    throw new SaettaError("there is no such file or folder", { where: path });
  }
  if (found.isDirectory()) return inspectFolder(path, options);
  const bytes = found.size;
  const first = await firstBytes(path);
  if (formatOf(first) === "parquet") throw noParquet(path);
  if (path.endsWith(".safetensors.index.json")) return inspectShards(path, options);
  const read = readerOf(path, first);
  if (read === undefined) {
    throw new FormatError(bytes === 0 ? "the file is empty" : "is of no kind that Saetta knows", {
      where: path,
      mend: "it reads HDF5, npy, safetensors, Arrow and torch files, ONNX models, tokenizer.json, cfg.json, run folders and checkpoint folders",
    });
  }
  if (extname(path).toLowerCase() === ".npz") return { path, bytes, ...(await npz(path)) };
  const { kind, facts } = await read(path);
  if (kind === TORCH) return { path, bytes, ...(await torch(path, options)) };
  const arrays = kind === HDF5 || kind === NPY || kind === SAFETENSORS || kind === ARROW;
  if (!arrays) return { path, bytes, kind, facts };
  // A safetensors file of several tensors is more often an autoencoder or a model than activations.
  const { activations, advice } = await activationsIn(path, options, kind === SAFETENSORS);
  return { path, bytes, kind, facts: { ...facts, ...(activations && { activations }) }, ...(advice && { advice }) };
}

async function inspectShards(path: string, options: OpenOptions): Promise<Inspection> {
  return { path, ...(await activationShards(path, options)) };
}

/** A protobuf message ends here. */
const MOST_ONNX = 2 ** 31 - 1;
const OPENING = "{".charCodeAt(0);
const HDF5 = "HDF5 file";
const NPY = "npy file";
const SAFETENSORS = "safetensors file";
const TORCH = "torch file";
const ARROW = "Arrow stream";

function readerOf(path: string, first: Uint8Array): ((path: string) => Promise<FileContents>) | undefined {
  const extension = extname(path).toLowerCase();
  const format = formatOf(first);
  if (format === "hdf5" || [".h5", ".hdf5"].includes(extension)) return hdf5;
  if (format === "npy" || extension === ".npy") return npy;
  if (extension === ".safetensors") return safetensors;
  if (extension === ".onnx") return onnx;
  if (format === "safetensors") return safetensors;
  if (format === "arrow") return arrow;
  if (format === "zip" || [".pt", ".pth"].includes(extension)) return () => Promise.resolve({ kind: TORCH, facts: {} });
  if (first[0] === OPENING) return json;
  return undefined;
}

async function hdf5(path: string): Promise<FileContents> {
  const file = await openHdf5(path);
  try {
    const datasets = file.datasets.map(({ name, shape, type, layout, chunk, problem, link }) => ({
      name,
      shape: [...shape],
      dtype: type,
      layout: chunk === undefined ? layout : `${layout} [${chunk.join(", ")}]`,
      problem,
      link: link && `is ${link}`,
    }));
    return { kind: HDF5, facts: { datasets, attributes: Object.fromEntries(file.attributes) } };
  } finally {
    await file.close();
  }
}

async function npy(path: string): Promise<FileContents> {
  const { handle, shape, type, problem } = await openNpy(path);
  await handle.close();
  return { kind: NPY, facts: { shape: [...shape], dtype: type, problem: problem?.what } };
}

async function safetensors(path: string): Promise<FileContents> {
  const file = await openSafetensors(path);
  await file.close();
  const tensors = [...file.tensors].map(([name, { dtype, shape, begin, end }]) => ({
    name,
    dtype,
    shape: [...shape],
    bytes: end - begin,
  }));
  return { kind: SAFETENSORS, facts: { tensors, metadata: Object.fromEntries(file.metadata) } };
}

async function arrow(path: string): Promise<FileContents> {
  const file = await openArrow(path);
  await file.close();
  return { kind: ARROW, facts: { columns: file.columns.map(({ name, type }) => ({ name, type })) } };
}

/** An autoencoder, or what may be activations. */
async function torch(path: string, options: OpenOptions): Promise<Omit<Inspection, "path">> {
  const { autoencoder, ...found } = await inspectTorch(path);
  const names = new Set(await disk.list(dirname(path)));
  if (autoencoder) return (await inspectForeign(path, names)) ?? found;
  const { activations, advice } = await activationsIn(path, options, true);
  return { ...found, facts: { ...found.facts, ...(activations && { activations }) }, ...(advice && { advice }) };
}

/** An autoencoder, or arrays. */
async function npz(path: string): Promise<FileContents> {
  const names = new Set(await disk.list(dirname(path)));
  return (await inspectForeign(path, names)) ?? inspectNpz(path);
}

async function onnx(path: string): Promise<FileContents> {
  const { size } = await stat(path);
  if (size > MOST_ONNX)
    throw new FormatError(`${size} bytes, more than the ${MOST_ONNX} that an ONNX file can have`, { where: path });
  const { inputs, outputs, nodes, initializers } = parseOnnx(await readFile(path), path);
  await checkExternalData(initializers.values(), path);
  const parameters = [...initializers.values()].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  return { kind: "ONNX model", facts: { inputs: [...inputs], outputs: [...outputs], nodes: nodes.length, parameters } };
}

async function json(path: string): Promise<FileContents> {
  const object = asObject(await readJsonFile(path, 256 * 1024 * 1024), "the file", path);
  if (object.model !== undefined && basename(path).startsWith("tokenizer")) return tokenizer(path, object);
  if (object.d_in !== undefined && object.k !== undefined)
    return { kind: "description of an autoencoder", facts: sae(parseDescription(object, path)) };
  const plain = Object.entries(object).filter(
    (entry): entry is [string, string | number | boolean] => typeof entry[1] !== "object",
  );
  return { kind: "JSON file", facts: Object.fromEntries(plain) };
}

async function tokenizer(path: string, object: JsonObject): Promise<FileContents> {
  const { vocabSize, startToken, pieces } = await loadTokenizer(path);
  const { type } = asObject(object.model, '"model"', path);
  const facts = { model: typeof type === "string" ? type : undefined, vocabulary: vocabSize, start_token: startToken };
  return { kind: "tokenizer", facts: { ...facts, start_token_text: pieces([startToken])[0] } };
}

function sae(description: SaeDescription): Facts {
  const { spec, saetta } = description;
  return {
    activation: spec.architecture,
    ...sizesOf(description),
    ...architectureNamed(spec.architecture).numbers(spec),
    ...(saetta === undefined ? { origin: "sparsify" } : (snakeCase(saetta) as Facts)),
  };
}

async function inspectFolder(path: string, options: OpenOptions): Promise<Inspection> {
  const names = new Set(await disk.list(path));
  if (names.has(CONFIG) && (await isRun(path, names))) return runFolder(path);
  if (!names.has(CFG) || (!names.has(WEIGHTS) && !names.has(OWN_WEIGHTS))) {
    const foreign = (await isForeign(path, names)) ? await inspectForeign(path, names) : undefined;
    if (foreign !== undefined) return { path, ...foreign };
    if (await holdsActivations(path)) return inspectShards(path, options);
    const many = await folderOfSaes(path);
    if (many !== undefined) return many;
    throw new FormatError(
      `is no run folder (config.json, metrics.jsonl), no autoencoder (${CFG} and ${WEIGHTS}), and has no files of activations`,
      {
        where: path,
        mend: "name a file in it",
      },
    );
  }
  const description = await readDescription(path);
  const about = sae(description);
  const file = weightsFile(description);
  const { facts } = await safetensors(join(path, file));
  const weights = facts.tensors as readonly Facts[];
  if (!names.has(MANIFEST))
    return { path, kind: "autoencoder", facts: { ...about, ...(await labels(path)), [file]: weights } };
  const { step, files } = await openCheckpoint(path);
  const listed = [...files].map(([name, { size, sha256 }]) => ({ name, bytes: size, sha256 }));
  const average = files.has(AVERAGE);
  return { path, kind: "checkpoint, whole", facts: { step, ...about, average, files: listed, [file]: weights } };
}

/**
 * The autoencoders below a folder, or those that a path chooses which is not there: the only one,
 * or a list. undefined where there are none.
 */
async function folderOfSaes(path: string): Promise<Inspection | undefined> {
  const { root, saes } = await listBelow(path);
  const [only, ...more] = saes;
  if (only === undefined) return undefined;
  if (more.length === 0 && root !== path) return inspect(join(root, only.path));
  const rows = saes.map(({ path: each, format, ...rest }) => {
    const { inputs, latents, l0, bytes } = rest as Facts;
    return { path: each, format, inputs, latents, l0, bytes } as Facts;
  });
  return {
    path: root,
    kind: saes.length === 1 ? "folder of an autoencoder" : `folder of ${saes.length} autoencoders`,
    facts: { autoencoders: rows },
    advice: [`name one: ${join(root, only.path)}, or choose with --select`],
  };
}

/** A run has a folder of checkpoints from the start. */
async function isRun(path: string, names: ReadonlySet<string>): Promise<boolean> {
  return (await isRunFolder(path, names)) || (names.has(CHECKPOINTS) && !namesForeign(names));
}

async function runFolder(path: string): Promise<Inspection> {
  const where = join(path, CONFIG);
  const config = asObject(await readJsonFile(where), "the file", where);
  const checkpoints: Facts[] = [];
  for (const step of await savedSteps(path)) {
    const folder = join(checkpointsFolder(path), stepName(step));
    const state = await openCheckpoint(folder, []).then(
      () => "complete",
      (error: unknown) => messageOf(error),
    );
    checkpoints.push({ step, state });
  }
  const last = await lastReport(path);
  return {
    path,
    kind: "run folder",
    facts: { ...last, ...(await labels(path)), checkpoints, config: withoutNull(config) as Facts },
  };
}

/** How many latents have a name or a note, where there are any. */
async function labels(folder: string): Promise<Facts> {
  const { size } = (await readLabels(join(folder, LABELS))).of;
  return size === 0 ? {} : { labels: size };
}

/** The value without what is null, at any depth. */
function withoutNull(value: Json): Json {
  if (Array.isArray(value)) return value.filter((each: Json) => each !== null).map(withoutNull);
  if (typeof value !== "object" || value === null) return value;
  const kept = Object.entries(value).filter(([, each]) => each !== null);
  return Object.fromEntries(kept.map(([name, each]) => [name, withoutNull(each)]));
}

/** What the newest line of metrics.jsonl says, the rows held out before those trained on. */
async function lastReport(path: string): Promise<Facts> {
  const text = await readFile(join(path, METRICS), "utf8").catch(() => "");
  let values: JsonObject = {};
  for (const line of text.trimEnd().split("\n").slice(-1)) {
    try {
      values = asObject(JSON.parse(line) as JsonObject, "a line", path);
    } catch {
      // the line is being written, or there is none
    }
  }
  const names: readonly (keyof Report)[] = [
    ...([
      "step",
      "holdout_fvu",
      "holdout_fvu_ema",
      "fvu",
      "holdout_prefix_fvu",
      "prefix_fvu",
      "l0",
      "holdout_l0",
    ] as const),
    ...(["threshold", "threshold_quantiles", "sparsity_coef", "sparsity_loss", "dead", "tokens", "elapsed_s"] as const),
  ];
  return Object.fromEntries(
    names.flatMap((name): [string, Fact][] => {
      const value = values[name];
      if (typeof value === "number") return [[name, value]];
      const isList = Array.isArray(value) && value.every((each) => typeof each === "number");
      return isList ? [[name, value as readonly number[]]] : [];
    }),
  );
}
