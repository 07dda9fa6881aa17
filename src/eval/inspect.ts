/** What a file or folder is: everything that Saetta reads or writes, recognised by what is in it. */

import { open, readFile, stat } from "node:fs/promises";
import { basename, extname, join } from "node:path";
import { AVERAGE, CFG, checkpointsFolder, savedSteps, stepName, WEIGHTS } from "../checkpoint/layout.ts";
import { openCheckpoint } from "../checkpoint/load.ts";
import { disk } from "../checkpoint/storage.ts";
import { openHdf5 } from "../formats/hdf5-read.ts";
import { openSafetensors } from "../formats/safetensors.ts";
import { parseOnnx } from "../language-model/onnx-graph.ts";
import { loadTokenizer } from "../language-model/tokenizer.ts";
import { parseDescription } from "../sae/description.ts";
import { readFully } from "../util/bytes.ts";
import { FormatError, hasCode, messageOf, SaettaError } from "../util/errors.ts";
import { asObject, type JsonObject, readJsonFile, snakeCase } from "../util/json.ts";

/** `kind` in words; `facts` as plain JSON. Lists of objects are tables. */
export interface Inspection {
  readonly path: string;
  readonly kind: string;
  readonly bytes?: number;
  readonly facts: Facts;
}
export type Fact = string | number | boolean | undefined | readonly (string | number)[];
export interface Facts {
  readonly [name: string]: Fact | Facts | readonly Facts[];
}

/** Looks at one file or folder. Throws FormatError when it is damaged or of no kind that Saetta knows, SaettaError when it cannot be read. */
export async function inspect(path: string): Promise<Inspection> {
  const found = await stat(path).catch((cause: unknown) => {
    const what = hasCode(cause, "ENOENT") ? "there is no such file or folder" : `cannot be read (${messageOf(cause)})`;
    throw new SaettaError(what, { where: path, cause });
  });
  if (found.isDirectory()) return inspectFolder(path);
  const bytes = found.size;
  const magic = await firstBytes(path, bytes);
  const read = readerOf(path, bytes, magic);
  if (read === undefined) {
    throw new FormatError(bytes === 0 ? "the file is empty" : "is of no kind that Saetta knows", {
      where: path,
      mend: "it reads HDF5, safetensors, ONNX models, tokenizer.json, cfg.json, run folders and checkpoint folders",
    });
  }
  return { path, bytes, ...(await read(path)) };
}

type Found = Pick<Inspection, "kind" | "facts">;

async function firstBytes(path: string, size: number): Promise<Uint8Array> {
  const file = await open(path, "r");
  try {
    const bytes = new Uint8Array(Math.min(size, 16));
    await readFully(file, bytes, 0, path);
    return bytes;
  } finally {
    await file.close();
  }
}

/** A protobuf message ends here. */
const MOST_ONNX = 2 ** 31 - 1;
const HDF5_MAGIC = "\x89HDF\r\n\x1a\n";
const OPENING = "{".charCodeAt(0);

function readerOf(path: string, size: number, magic: Uint8Array): ((path: string) => Promise<Found>) | undefined {
  const extension = extname(path).toLowerCase();
  if (Buffer.from(magic).toString("latin1").startsWith(HDF5_MAGIC) || [".h5", ".hdf5"].includes(extension)) return hdf5;
  if (extension === ".safetensors") return safetensors;
  if (extension === ".onnx") return onnx;
  if (magic[0] === OPENING) return json;
  if (size > 8 && magic[8] === OPENING) return safetensors;
  return undefined;
}

async function hdf5(path: string): Promise<Found> {
  const file = await openHdf5(path);
  try {
    const datasets = file.datasets.map(({ name, shape, type, layout, chunk, problem }) => ({
      name,
      shape: [...shape],
      dtype: type,
      layout: chunk === undefined ? layout : `${layout} [${chunk.join(", ")}]`,
      problem,
    }));
    return { kind: "HDF5 file", facts: { datasets, attributes: Object.fromEntries(file.attributes) } };
  } finally {
    await file.close();
  }
}

async function safetensors(path: string): Promise<Found> {
  const file = await openSafetensors(path);
  await file.close();
  const tensors = [...file.tensors].map(([name, { dtype, shape, begin, end }]) => ({ name, dtype, shape: [...shape], bytes: end - begin }));
  return { kind: "safetensors file", facts: { tensors, metadata: Object.fromEntries(file.metadata) } };
}

async function onnx(path: string): Promise<Found> {
  const { size } = await stat(path);
  if (size > MOST_ONNX) throw new FormatError(`${size} bytes, more than the ${MOST_ONNX} that an ONNX file can have`, { where: path });
  const { inputs, outputs, nodes, initializers } = parseOnnx(await readFile(path), path);
  const parameters = [...initializers.values()].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  return { kind: "ONNX model", facts: { inputs: [...inputs], outputs: [...outputs], nodes: nodes.length, parameters } };
}

async function json(path: string): Promise<Found> {
  const object = asObject(await readJsonFile(path, 256 * 1024 * 1024), "the file", path);
  if (object.model !== undefined && basename(path).startsWith("tokenizer")) return tokenizer(path, object);
  if (object.d_in !== undefined && object.k !== undefined) return { kind: "description of an autoencoder", facts: sae(object, path) };
  const plain = Object.entries(object).filter((entry): entry is [string, string | number | boolean] => typeof entry[1] !== "object");
  return { kind: "JSON file", facts: Object.fromEntries(plain) };
}

async function tokenizer(path: string, object: JsonObject): Promise<Found> {
  const { vocabSize, startToken, pieces } = await loadTokenizer(path);
  const { type } = asObject(object.model, '"model"', path);
  const facts = { model: typeof type === "string" ? type : undefined, vocabulary: vocabSize, start_token: startToken };
  return { kind: "tokenizer", facts: { ...facts, start_token_text: pieces([startToken])[0] } };
}

function sae(object: JsonObject, where: string): Facts {
  const { shape, saetta } = parseDescription(object, where);
  const { d, n, k, auxk } = shape;
  return {
    activation: "topk",
    inputs: d,
    latents: n,
    k,
    auxk,
    ...(saetta === undefined ? { origin: "sparsify" } : (snakeCase(saetta) as Facts)),
  };
}

async function inspectFolder(path: string): Promise<Inspection> {
  const names = new Set(await disk.list(path));
  if (names.has("config.json") && (names.has("checkpoints") || names.has("metrics.jsonl"))) return runFolder(path);
  if (!names.has(CFG) || !names.has(WEIGHTS)) {
    throw new FormatError(`is no run folder (config.json, metrics.jsonl), and no autoencoder (${CFG} and ${WEIGHTS})`, {
      where: path,
      mend: "name a file in it",
    });
  }
  const where = join(path, CFG);
  const about = sae(asObject(await readJsonFile(where), "the file", where), where);
  const { facts } = await safetensors(join(path, WEIGHTS));
  const weights = facts.tensors as readonly Facts[];
  if (!names.has("manifest.json")) return { path, kind: "autoencoder", facts: { ...about, [WEIGHTS]: weights } };
  const { step, files } = await openCheckpoint(path);
  const listed = [...files].map(([name, { size, sha256 }]) => ({ name, bytes: size, sha256 }));
  const average = files.has(AVERAGE);
  return { path, kind: "checkpoint, whole", facts: { step, ...about, average, files: listed, [WEIGHTS]: weights } };
}

async function runFolder(path: string): Promise<Inspection> {
  const where = join(path, "config.json");
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
  const shown = Object.entries(config).filter(([, value]) => value !== null);
  const facts = Object.fromEntries(shown.map(([name, value]) => [name, typeof value === "object" ? JSON.stringify(value) : value]));
  return { path, kind: "run folder", facts: { config: facts as Facts, checkpoints } };
}
