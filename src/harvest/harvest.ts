/**
 * Text and a language model in, a file of activations out: tokenise, pack into contexts, run the
 * model up to one of its tensors, write.
 */

import { access, constants, stat } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { dirname } from "node:path";
import { createHdf5, type Hdf5Writer } from "../formats/hdf5-write.ts";
import { contextOf, type LanguageModel, loadModel, loadTokenizerOf } from "../language-model/load.ts";
import { cutAt } from "../language-model/onnx-graph.ts";
import { openSession, type Session } from "../language-model/session.ts";
import { checkTensorName } from "../language-model/tensors.ts";
import type { Tokenizer } from "../language-model/tokenizer.ts";
import { bytesOf } from "../util/bytes.ts";
import { messageOf, SaettaError, UsageError } from "../util/errors.ts";
import { encodeFloat16, firstNonFinite } from "../util/float16.ts";
import { makeFolders } from "../util/folders.ts";
import { relativeTo } from "../util/moved.ts";
import { countInWords, mustBe, numberInWords } from "../util/must.ts";
import { Packer } from "./pack.ts";
import { checkText, documentsOf } from "./text.ts";

export interface HarvestOptions {
  /** A .onnx file, or a folder with model.onnx; tokenizer.json lies beside it. */
  readonly model: string;
  /**
   * A UTF-8 file of documents separated by blank lines, or .jsonl with a "text" a line; either may
   * end in .gz.
   */
  readonly text: string;
  /** Name of a tensor [batch, sequence, width] inside the model. */
  readonly tensor: string;
  /** The HDF5 file to write. Must not exist. */
  readonly out: string;
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

export interface HarvestResult {
  readonly out: string;
  /** `hidden_states` [sequences, context, width]. */
  readonly sequences: number;
  readonly context: number;
  readonly width: number;
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
 * Writes the activations of `tensor` for the text. Rejects with SaettaError, and leaves no file,
 * when anything is not as it must be, a value is not finite or does not fit the dtype, or `signal`
 * is aborted.
 */
export async function harvest(options: HarvestOptions): Promise<HarvestResult> {
  const began = performance.now();
  await checkOut(options.out);
  await checkText(options.text);
  const model = await loadModel(options.model);
  checkTensorName(model.graph, options.tensor);
  const tokenizer = await loadTokenizerOf(model);
  const threads = availableParallelism();
  const session = await openSession(cutAt(model.graph, [options.tensor]), model.path, threads);
  try {
    const context = await chooseContext(options.context, model, session);
    const width = await probe(options.tensor, model, session, context, tokenizer.startToken);
    const ids = await tokenize(options, tokenizer, context);
    const job: Job = {
      options,
      ids,
      sequences: ids.length / context,
      context,
      width,
      batch: session.fixed.batch ?? Math.max(1, Math.floor((TOKENS_A_THREAD * threads) / context)),
      dtype: options.dtype ?? "f16",
    };
    await writeFile(job, model, tokenizer, session);
    const { sequences, dtype } = job;
    return {
      out: options.out,
      sequences,
      context,
      width,
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
  /** Token ids [sequences, context]. */
  readonly ids: Int32Array;
  readonly sequences: number;
  readonly context: number;
  readonly width: number;
  readonly batch: number;
  readonly dtype: "f16" | "f32";
}

/**
 * Makes sure, before any work, that the file can be written; makes its folder where there is none.
 */
async function checkOut(out: string): Promise<void> {
  if ((await stat(out).catch(() => undefined)) !== undefined) {
    throw new SaettaError("exists already", { where: out, mend: "remove it or choose another --out" });
  }
  const folder = dirname(out);
  try {
    await makeFolders(folder);
    await access(folder, constants.W_OK);
  } catch (cause) {
    throw new SaettaError(`nothing can be written there (${messageOf(cause)})`, {
      where: folder,
      mend: "choose another --out",
      cause,
    });
  }
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

/** The tensor's width, from a run on one context of start tokens. */
async function probe(
  tensor: string,
  model: LanguageModel,
  session: Session,
  context: number,
  startToken: number,
): Promise<number> {
  const output = session.outputs.find(({ name }) => name === tensor);
  const refuse = (what: string): UsageError =>
    new UsageError(`the tensor '${tensor}' ${what}`, {
      where: model.path,
      mend: "choose one of those that --list-tensors shows",
    });
  if (output !== undefined && !/^float(16|32)$/.test(output.type))
    throw refuse(`is of ${output.type}, not of float32 or float16`);
  if (output?.rank !== undefined && output.rank !== 3)
    throw refuse(`has ${output.rank} dimensions, not [batch, sequence, width]`);
  const shape = (await session.run(new Int32Array(context).fill(startToken), 1, [tensor])).get(tensor)?.shape ?? [];
  const width = shape[2];
  if (shape.length !== 3 || shape[0] !== 1 || shape[1] !== context || width === undefined || width < 1) {
    throw refuse(
      `has the shape [${shape.join(", ")}] for 1 context of ${context} tokens, not [batch, sequence, width]`,
    );
  }
  return width;
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

async function writeFile(job: Job, model: LanguageModel, tokenizer: Tokenizer, session: Session): Promise<void> {
  const { options, sequences, context, width, dtype } = job;
  const [modelNear = "", tokenizerNear = ""] = await relativeTo(dirname(options.out), [model.path, tokenizer.path]);
  const writer = await createHdf5(options.out, {
    datasets: [
      { name: "hidden_states", dtype, shape: [sequences, context, width] },
      { name: "tokens", dtype: "i32", shape: [sequences, context] },
    ],
    attributes: {
      model: model.path,
      model_relative: modelNear,
      model_sha256: model.sha256,
      tensor: options.tensor,
      tokenizer: tokenizer.path,
      tokenizer_relative: tokenizerNear,
      start_token: tokenizer.startToken,
    },
  });
  try {
    await writer.write("tokens", 0, bytesOf(job.ids));
    await writeStates(job, writer, session);
    await writer.close();
  } catch (thrown) {
    await writer.discard();
    throw thrown;
  }
}

async function writeStates(job: Job, writer: Hdf5Writer, session: Session): Promise<void> {
  const { options, ids, sequences, context, width, batch, dtype } = job;
  const halves = dtype === "f16" ? new Uint16Array(batch * context * width) : undefined;
  for (let first = 0; first < sequences; first += batch) {
    stopIf(options.signal, options.out);
    const count = Math.min(batch, sequences - first);
    const part = ids.subarray(first * context, (first + count) * context);
    const { shape, values } = (await session.run(part, count, [options.tensor])).get(options.tensor)!;
    if (shape[0] !== count || shape[1] !== context || shape[2] !== width || values.length !== part.length * width) {
      throw new SaettaError(
        `the tensor '${options.tensor}' came with the shape [${shape.join(", ")}], not [${count}, ${context}, ${width}]`,
      );
    }
    const place = (at: number): string => {
      const row = Math.floor(at / width);
      return `in tensor '${options.tensor}', sequence ${first + Math.floor(row / context)}, position ${row % context}`;
    };
    const bad = firstNonFinite(bytesOf(values), "f32", 0, values.length);
    if (bad >= 0)
      throw new SaettaError(`the model computes ${values[bad]} ${place(bad)}`, {
        where: options.model,
        mend: "choose another tensor",
      });
    const overflow = halves === undefined ? -1 : encodeFloat16(values, halves);
    if (overflow >= 0) {
      throw new SaettaError(`${values[overflow]} is too large for float16 ${place(overflow)}`, {
        where: options.model,
        mend: "use --dtype f32",
      });
    }
    await writer.write("hidden_states", first * context * width, bytesOf(halves?.subarray(0, values.length) ?? values));
    options.onProgress?.({ stage: "harvest", done: (first + count) * context, total: ids.length });
  }
}

function stopIf(signal: AbortSignal | undefined, out: string): void {
  if (signal?.aborted)
    throw new SaettaError("stopped before the end; nothing was written", { where: out, cause: signal.reason });
}
