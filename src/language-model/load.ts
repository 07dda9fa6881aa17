/** A language model on disk: its graph and the tokenizer beside it. */

import { readFile, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { hasCode, messageOf, SaettaError } from "../util/errors.ts";
import { readJsonFile } from "../util/json.ts";
import { hashModel } from "./external-data.ts";
import { type OnnxGraph, parseOnnx } from "./onnx-graph.ts";
import { type Structure, structureOf } from "./structure.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";

export interface LanguageModel {
  /** Absolute path of the .onnx file. */
  readonly path: string;
  /** Of the file, and of weights that are in others. */
  readonly sha256: string;
  readonly graph: OnnxGraph;
  readonly structure: Structure;
}

/** A protocol buffer is smaller than 2 GiB, and so is what one read takes. */
const MAX_BYTES = 2 ** 31 - 1;

/**
 * Reads a model.onnx, or the one in a folder. Throws SaettaError or FormatError when there is none,
 * or it cannot be used.
 */
export async function loadModel(path: string): Promise<LanguageModel> {
  const file = await modelFile(resolve(path));
  const bytes = await readFile(file).catch((cause: unknown) => {
    throw new SaettaError(`cannot be read (${messageOf(cause)})`, { where: file, cause });
  });
  const graph = parseOnnx(bytes, file);
  return {
    path: file,
    sha256: await hashModel(bytes, graph.initializers.values(), file),
    graph,
    structure: structureOf(graph),
  };
}

/**
 * The tokenizer at `asked`, a tokenizer.json or its folder; without it the one next to the model.
 * Throws SaettaError when its vocabulary is not that of the model.
 */
export async function loadTokenizerOf(model: LanguageModel, asked = dirname(model.path)): Promise<Tokenizer> {
  const tokenizer = await loadTokenizer(asked);
  const { tokens } = model.structure;
  if (tokens === undefined) return tokenizer;
  // Embeddings are often padded to a round number of rows, but not by a quarter.
  if (tokenizer.textSize > tokens || tokenizer.startToken >= tokens || tokenizer.vocabSize * 1.25 < tokens) {
    throw new SaettaError(
      `the tokenizer has ${tokenizer.vocabSize} tokens but the model ${tokens}: they do not belong together`,
      {
        where: tokenizer.path,
        mend: `use the tokenizer.json that was trained with ${basename(model.path)}`,
      },
    );
  }
  return {
    ...tokenizer,
    encode(text) {
      const ids = tokenizer.encode(text);
      const unknown = ids.find((id) => id >= tokens);
      if (unknown === undefined) return ids;
      throw new SaettaError(
        `the text has the token ${unknown} (${JSON.stringify(tokenizer.decode([unknown]))}), but the model knows ${tokens}`,
        {
          where: tokenizer.path,
          mend: "take that token out of the text",
        },
      );
    },
  };
}

const DEFAULT_CONTEXT = 256;
/** A longer context than this only slows a harvest down unless it is asked for. */
const MOST_BY_DEFAULT = 1024;

/**
 * The positions that the model can take: of its position embedding, else of the config.json beside
 * it; undefined where neither tells. `byDefault`: the context to use when none is asked for.
 */
export async function contextOf(model: LanguageModel): Promise<{ most: number | undefined; byDefault: number }> {
  const most = model.structure.positions ?? (await positionsInConfig(model));
  return { most, byDefault: Math.min(most ?? DEFAULT_CONTEXT, MOST_BY_DEFAULT) };
}

async function positionsInConfig(model: LanguageModel): Promise<number | undefined> {
  const path = join(dirname(model.path), "config.json");
  if ((await stat(path).catch(() => undefined)) === undefined) return undefined;
  const config = await readJsonFile(path);
  if (typeof config !== "object" || config === null) return undefined;
  for (const name of ["max_position_embeddings", "n_positions", "n_ctx"]) {
    const value = (config as Readonly<Record<string, unknown>>)[name];
    if (typeof value === "number" && Number.isSafeInteger(value) && value > 1) return value;
  }
  return undefined;
}

async function modelFile(path: string): Promise<string> {
  const find = (at: string) =>
    stat(at).catch((cause: unknown) => {
      const what = hasCode(cause, "ENOENT", "ENOTDIR")
        ? "there is no such file"
        : `cannot be read (${messageOf(cause)})`;
      throw new SaettaError(what, {
        where: at,
        mend: "name a .onnx file, or a folder with model.onnx and tokenizer.json",
        cause,
      });
    });
  const file = (await find(path)).isDirectory() ? join(path, "model.onnx") : path;
  const { size } = await find(file);
  if (size > MAX_BYTES) {
    throw new SaettaError(`${size} bytes, but an ONNX file has fewer than 2 GiB`, {
      where: file,
      mend: "save its weights next to it: onnx.save(model, path, save_as_external_data=True)",
    });
  }
  return file;
}
