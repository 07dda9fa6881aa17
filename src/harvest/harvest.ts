/**
 * Text and a language model in, files of activations out: tokenise, pack into contexts, run the
 * model once up to the tensors asked for, write a file per tensor.
 */

import { rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { dirname } from "node:path";
import { createHdf5, type Hdf5Writer } from "../formats/hdf5-write.ts";
import { contextOf, type LanguageModel, loadModel, loadTokenizerOf } from "../language-model/load.ts";
import { cutAt } from "../language-model/onnx-graph.ts";
import { type Activations, openSession, type Session } from "../language-model/session.ts";
import { checkTensorName } from "../language-model/tensors.ts";
import type { Tokenizer } from "../language-model/tokenizer.ts";
import { bytesOf } from "../util/bytes.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { encodeFloat16, firstNonFinite } from "../util/float16.ts";
import { relativeTo } from "../util/moved.ts";
import { countInWords, mustBe, numberInWords } from "../util/must.ts";
import { Packer } from "./pack.ts";
import { checkOut, outOf, type Place, placesOf, type Wanted } from "./places.ts";
import { checkText, documentsOf } from "./text.ts";

export interface HarvestOptions extends Wanted {
  /** A .onnx file, or a folder with model.onnx; tokenizer.json lies beside it. */
  readonly model: string;
  /**
   * A UTF-8 file of documents separated by blank lines, or .jsonl with a "text" a line; either may
   * end in .gz.
   */
  readonly text: string;
  /** Rows to harvest, rounded up to whole contexts; default: all that the text gives. */
  readonly tokens?: number | undefined;
  /** Tokens a context; default: what the model can take, at most 1024. */
  readonly context?: number | undefined;
  readonly dtype?: "f16" | "f32" | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (progress: HarvestProgress) => void;
  /** Told in a line what a user should know and need not mend. */
  readonly onNote?: (note: string) => void;
}

export interface HarvestProgress {
  readonly stage: "tokenize" | "harvest";
  /** Tokens done, and how many there will be. */
  readonly done: number;
  readonly total: number | undefined;
}

/** A file that was written: `hidden_states` [sequences, context, width]. */
export interface HarvestedFile extends Place {
  readonly width: number;
}

export interface HarvestResult {
  /** File and width of the first tensor. */
  readonly out: string;
  readonly width: number;
  /** One per tensor, in the order asked for. */
  readonly files: readonly HarvestedFile[];
  readonly sequences: number;
  readonly context: number;
  /** Of each file. */
  readonly rows: number;
  readonly dtype: "f16" | "f32";
  readonly seconds: number;
}

/**
 * Tokens that a thread works on at a time. With many more, what lies between two layers leaves the
 * cache: a third slower at 8192.
 */
const TOKENS_A_THREAD = 512;

/**
 * Writes the activations of each tensor for the text. Rejects with SaettaError, and leaves no file,
 * when anything is not as it must be, a value is not finite or does not fit the dtype, or `signal`
 * is aborted.
 */
export async function harvest(options: HarvestOptions): Promise<HarvestResult> {
  const began = performance.now();
  const places = await placesOf(options);
  for (const { out } of places) await checkOut(out);
  await checkText(options.text);
  const model = await loadModel(options.model);
  const tensors = places.map(({ tensor }) => tensor);
  for (const tensor of tensors) checkTensorName(model.graph, tensor);
  const tokenizer = await loadTokenizerOf(model);
  const threads = availableParallelism();
  const session = await openSession(cutAt(model.graph, tensors), model.path, threads);
  try {
    const context = await chooseContext(options.context, model, session);
    const widths = await probe(tensors, model, session, context, tokenizer.startToken);
    const ids = await tokenize({ ...options, out: outOf(options) }, tokenizer, context);
    const files = places.map((place, i) => ({ ...place, width: widths[i]! }));
    const job: Job = {
      options,
      files,
      ids,
      sequences: ids.length / context,
      context,
      batch: session.fixed.batch ?? Math.max(1, Math.floor((TOKENS_A_THREAD * threads) / context)),
      dtype: options.dtype ?? "f16",
    };
    await writeFiles(job, model, tokenizer, session);
    const { sequences, dtype } = job;
    const { out, width } = files[0]!;
    return {
      out,
      width,
      files,
      sequences,
      context,
      rows: ids.length,
      dtype,
      seconds: (performance.now() - began) / 1000,
    };
  } finally {
    await session.close();
  }
}

interface Job {
  readonly options: HarvestOptions;
  readonly files: readonly HarvestedFile[];
  /** Token ids [sequences, context]. */
  readonly ids: Int32Array;
  readonly sequences: number;
  readonly context: number;
  readonly batch: number;
  readonly dtype: "f16" | "f32";
}

async function chooseContext(wanted: number | undefined, model: LanguageModel, session: Session): Promise<number> {
  const { most, byDefault } = await contextOf(model);
  const { fixed } = session;
  if ((fixed.batch ?? 1) !== 1) {
    throw new SaettaError(`the model was exported for batches of ${fixed.batch}`, {
      where: model.path,
      mend: "export it with a dynamic batch",
    });
  }
  const context = wanted ?? fixed.context ?? byDefault;
  const wrong = (why: string): UsageError =>
    new UsageError(`a context of ${context} tokens: ${why}`, { mend: "give another --context" });
  if (!Number.isSafeInteger(context) || context < 2)
    throw new UsageError(mustBe("--context", numberInWords({ least: 2 }, "whole number"), context));
  if (fixed.context !== undefined && context !== fixed.context) throw wrong(`the model takes exactly ${fixed.context}`);
  if (most !== undefined && context > most) throw wrong(`the model takes at most ${most}`);
  return context;
}

/** The width of each tensor, from a run on one context of start tokens. */
async function probe(
  tensors: readonly string[],
  model: LanguageModel,
  session: Session,
  context: number,
  startToken: number,
): Promise<number[]> {
  const refuse = (tensor: string, what: string): UsageError =>
    new UsageError(`the tensor '${tensor}' ${what}`, {
      where: model.path,
      mend: "choose one of those that --list-tensors shows",
    });
  for (const tensor of tensors) {
    const output = session.outputs.find(({ name }) => name === tensor);
    if (output !== undefined && !/^float(16|32)$/.test(output.type))
      throw refuse(tensor, `is of ${output.type}, not of float32 or float16`);
    if (output?.rank !== undefined && output.rank !== 3)
      throw refuse(tensor, `has ${output.rank} dimensions, not [batch, sequence, width]`);
  }
  const results = await session.run(new Int32Array(context).fill(startToken), 1, tensors);
  return tensors.map((tensor) => {
    const shape = results.get(tensor)?.shape ?? [];
    const width = shape[2];
    if (shape.length === 3 && shape[0] === 1 && shape[1] === context && width !== undefined && width >= 1) return width;
    throw refuse(
      tensor,
      `has the shape [${shape.join(", ")}] for 1 context of ${context} tokens, not [batch, sequence, width]`,
    );
  });
}

/**
 * The token ids [sequences, context] of as much of the text as was asked for. Throws SaettaError
 * when it does not fill one context.
 */
export async function tokenize(
  options: Pick<HarvestOptions, "text" | "tokens" | "signal" | "onProgress" | "onNote"> & { readonly out?: string },
  tokenizer: Tokenizer,
  context: number,
): Promise<Int32Array> {
  const { tokens, text, signal, onProgress, onNote, out = "" } = options;
  if (tokens !== undefined && !(Number.isSafeInteger(tokens) && tokens > 0)) {
    throw new UsageError(mustBe("--tokens", countInWords(1), tokens));
  }
  const wanted = tokens === undefined ? Number.POSITIVE_INFINITY : Math.ceil(tokens / context);
  const packer = new Packer(context, tokenizer.startToken);
  for await (const document of documentsOf(text)) {
    stopIf(signal, out);
    packer.add(tokenizer.encode(document));
    onProgress?.({
      stage: "tokenize",
      done: Math.min(packer.tokens, wanted * context),
      total: tokens && wanted * context,
    });
    if (packer.contexts >= wanted) break;
  }
  if (packer.contexts === 0) {
    throw new SaettaError(`${packer.tokens} tokens do not fill one context of ${context}`, {
      where: text,
      mend: "give more text or a smaller --context",
    });
  }
  if (tokens !== undefined && packer.contexts < wanted) {
    onNote?.(`the text gives ${packer.contexts * context} tokens, not ${tokens}`);
  }
  return packer.take(wanted);
}

/** Writes all files, or none. */
async function writeFiles(job: Job, model: LanguageModel, tokenizer: Tokenizer, session: Session): Promise<void> {
  const { files, ids } = job;
  const writers: Hdf5Writer[] = [];
  const closed: string[] = [];
  try {
    for (const file of files) writers.push(await beginFile(job, file, model, tokenizer));
    for (const writer of writers) await writer.write("tokens", 0, bytesOf(ids));
    await writeStates(job, writers, session);
    for (const [i, writer] of writers.entries()) {
      await writer.close();
      closed.push(files[i]!.out);
    }
  } catch (thrown) {
    for (const writer of writers) await writer.discard();
    for (const out of closed) await rm(out, { force: true });
    throw thrown;
  }
}

async function beginFile(
  { sequences, context, dtype }: Job,
  { tensor, out, width }: HarvestedFile,
  model: LanguageModel,
  tokenizer: Tokenizer,
): Promise<Hdf5Writer> {
  const [modelNear = "", tokenizerNear = ""] = await relativeTo(dirname(out), [model.path, tokenizer.path]);
  return createHdf5(out, {
    datasets: [
      { name: "hidden_states", dtype, shape: [sequences, context, width] },
      { name: "tokens", dtype: "i32", shape: [sequences, context] },
    ],
    attributes: {
      model: model.path,
      model_relative: modelNear,
      model_sha256: model.sha256,
      tensor,
      tokenizer: tokenizer.path,
      tokenizer_relative: tokenizerNear,
      start_token: tokenizer.startToken,
    },
  });
}

/** `writers`: of each of the job's files. */
async function writeStates(job: Job, writers: readonly Hdf5Writer[], session: Session): Promise<void> {
  const { options, files, ids, sequences, context, batch, dtype } = job;
  const tensors = files.map(({ tensor }) => tensor);
  const widest = Math.max(...files.map(({ width }) => width));
  const halves = dtype === "f16" ? new Uint16Array(batch * context * widest) : undefined;
  for (let first = 0; first < sequences; first += batch) {
    stopIf(options.signal, outOf(options));
    const count = Math.min(batch, sequences - first);
    const results = await session.run(ids.subarray(first * context, (first + count) * context), count, tensors);
    for (const [i, { tensor, width }] of files.entries()) {
      const values = checkedStates(job, files[i]!, results.get(tensor)!, first, count);
      const overflow = halves === undefined ? -1 : encodeFloat16(values, halves);
      if (overflow >= 0) {
        throw new SaettaError(
          `${values[overflow]} is too large for float16 ${placeOf(job, files[i]!, first, overflow)}`,
          { where: options.model, mend: "use --dtype f32" },
        );
      }
      const bytes = bytesOf(halves?.subarray(0, values.length) ?? values);
      await writers[i]!.write("hidden_states", first * context * width, bytes);
    }
    options.onProgress?.({ stage: "harvest", done: (first + count) * context, total: ids.length });
  }
}

/** The values of `count` contexts from `first` on, all finite. */
function checkedStates(
  job: Job,
  file: HarvestedFile,
  { shape, values }: Activations,
  first: number,
  count: number,
): Float32Array {
  const { context, options } = job;
  const { tensor, width } = file;
  const due = [count, context, width];
  if (shape.join() !== due.join() || values.length !== count * context * width)
    throw new SaettaError(`the tensor '${tensor}' came with the shape [${shape.join(", ")}], not [${due.join(", ")}]`);
  const bad = firstNonFinite(bytesOf(values), "f32", 0, values.length);
  if (bad < 0) return values;
  throw new SaettaError(`the model computes ${values[bad]} ${placeOf(job, file, first, bad)}`, {
    where: options.model,
    mend: "choose another tensor",
  });
}

/** Where element `at` of contexts from `first` on is. */
function placeOf({ context }: Job, { tensor, width }: HarvestedFile, first: number, at: number): string {
  const row = Math.floor(at / width);
  return `in tensor '${tensor}', sequence ${first + Math.floor(row / context)}, position ${row % context}`;
}

function stopIf(signal: AbortSignal | undefined, out: string): void {
  if (signal?.aborted)
    throw new SaettaError("stopped before the end; nothing was written", { where: out, cause: signal.reason });
}
