/**
 * Text and a language model in, files of activations out: tokenise, pack into contexts, run the
 * model once up to the tensors asked for, write a file per tensor.
 */

import { rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { dirname } from "node:path";
import { createHdf5, type Hdf5Writer } from "../formats/hdf5-write.ts";
import type { Tokenizer } from "../language-model/tokenizer.ts";
import { stopIf } from "../util/aborted.ts";
import { bytesOf } from "../util/bytes.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { relativeTo } from "../util/moved.ts";
import { countInWords, mustBe } from "../util/must.ts";
import { type ModelRun, openModelRun } from "./model-run.ts";
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
  const tensors = places.map(({ tensor }) => tensor);
  const threads = availableParallelism();
  const { dtype = "f16" } = options;
  const run = await openModelRun({ ...options, tensors, dtype, threads, tokensAtOnce: TOKENS_A_THREAD * threads });
  try {
    const { context, widths } = run;
    const ids = await tokenize({ ...options, out: outOf(options) }, run.tokenizer, context);
    const files = places.map((place, i) => ({ ...place, width: widths[i]! }));
    const sequences = ids.length / context;
    await writeFiles({ options, files, ids, run });
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
    await run.close();
  }
}

interface Job {
  readonly options: HarvestOptions;
  readonly files: readonly HarvestedFile[];
  /** Token ids [sequences, context]. */
  readonly ids: Int32Array;
  readonly run: ModelRun;
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
async function writeFiles(job: Job): Promise<void> {
  const { files, ids } = job;
  const writers: Hdf5Writer[] = [];
  const closed: string[] = [];
  try {
    for (const file of files) writers.push(await beginFile(job, file));
    for (const writer of writers) await writer.write("tokens", 0, bytesOf(ids));
    await writeStates(job, writers);
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

async function beginFile({ ids, run }: Job, { tensor, out, width }: HarvestedFile): Promise<Hdf5Writer> {
  const { model, tokenizer, context, dtype } = run;
  const sequences = ids.length / context;
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
async function writeStates({ options, ids, run }: Job, writers: readonly Hdf5Writer[]): Promise<void> {
  const { context, batch, widths } = run;
  const sequences = ids.length / context;
  for (let first = 0; first < sequences; first += batch) {
    stopIf(options.signal, outOf(options));
    const count = Math.min(batch, sequences - first);
    const parts = await run.states(ids, first, count);
    for (const [i, bytes] of parts.entries())
      await writers[i]!.write("hidden_states", first * context * widths[i]!, bytes);
    options.onProgress?.({ stage: "harvest", done: (first + count) * context, total: ids.length });
  }
}
