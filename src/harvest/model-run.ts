/** A language model, run up to the tensors that are asked for, a batch of contexts at a time. */

import { contextOf, type LanguageModel, loadModel, loadTokenizerOf } from "../language-model/load.ts";
import { cutAt } from "../language-model/onnx-graph.ts";
import { type Activations, openSession, type Session } from "../language-model/session.ts";
import { checkTensorName } from "../language-model/tensors.ts";
import type { Tokenizer } from "../language-model/tokenizer.ts";
import { bytesOf } from "../util/bytes.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { encodeFloat16, firstNonFinite } from "../util/float16.ts";
import { mustBe, numberInWords } from "../util/must.ts";

export interface ModelRunOptions {
  /** A .onnx file, or a folder with model.onnx; tokenizer.json lies next to it. */
  readonly model: string;
  readonly tensors: readonly string[];
  /** Tokens per context; default: what the model can take, at most 1024. */
  readonly context?: number | undefined;
  readonly dtype: "f16" | "f32";
  readonly threads: number;
  /** Tokens of a batch, rounded down to whole contexts. */
  readonly tokensAtOnce: number;
}

export interface ModelRun {
  readonly model: LanguageModel;
  readonly tokenizer: Tokenizer;
  readonly context: number;
  /** Contexts at a time. */
  readonly batch: number;
  readonly dtype: "f16" | "f32";
  /** Numbers per row of each tensor. */
  readonly widths: readonly number[];
  /**
   * Contexts [first, first + count) of `ids` [contexts, context]: the rows of each tensor as bytes,
   * valid until the next call. Rejects with SaettaError where a value is not finite or does not fit
   * the dtype.
   */
  states(ids: Int32Array, first: number, count: number): Promise<readonly Uint8Array[]>;
  close(): Promise<void>;
}

/** Rejects where the model, the tokenizer or a tensor is not as it must be. */
export async function openModelRun(options: ModelRunOptions): Promise<ModelRun> {
  const { tensors, dtype, threads } = options;
  const model = await loadModel(options.model);
  for (const tensor of tensors) checkTensorName(model.graph, tensor);
  const tokenizer = await loadTokenizerOf(model);
  const session = await openSession(cutAt(model.graph, tensors), model.path, threads);
  try {
    const context = await chooseContext(options.context, model, session);
    const widths = await probe(tensors, model, session, context, tokenizer.startToken);
    const batch = session.fixed.batch ?? Math.max(1, Math.floor(options.tokensAtOnce / context));
    const halves = tensors.map((_, i) => (dtype === "f16" ? new Uint16Array(batch * context * widths[i]!) : undefined));
    return {
      ...{ model, tokenizer, context, batch, dtype, widths },
      async states(ids, first, count) {
        const results = await session.run(ids.subarray(first * context, (first + count) * context), count, tensors);
        return tensors.map((tensor, i) => {
          const at = { tensor, width: widths[i]!, context, file: options.model };
          const values = checkedStates(at, results.get(tensor)!, first, count);
          const into = halves[i];
          if (into === undefined) return bytesOf(values);
          const overflow = encodeFloat16(values, into);
          if (overflow < 0) return bytesOf(into.subarray(0, values.length));
          throw new SaettaError(`${values[overflow]} is too large for float16 ${placeOf(at, first, overflow)}`, {
            where: options.model,
            mend: "use --dtype f32",
          });
        });
      },
      close: () => session.close(),
    };
  } catch (thrown) {
    await session.close();
    throw thrown;
  }
}

interface Place {
  readonly tensor: string;
  readonly width: number;
  readonly context: number;
  /** Of the model, as the user named it. */
  readonly file: string;
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

/** The values of `count` contexts from `first` on, all finite. */
function checkedStates(at: Place, { shape, values }: Activations, first: number, count: number): Float32Array {
  const { tensor, width, context, file } = at;
  const due = [count, context, width];
  if (shape.join() !== due.join() || values.length !== count * context * width)
    throw new SaettaError(`the tensor '${tensor}' came with the shape [${shape.join(", ")}], not [${due.join(", ")}]`);
  const bad = firstNonFinite(bytesOf(values), "f32", 0, values.length);
  if (bad < 0) return values;
  throw new SaettaError(`the model computes ${values[bad]} ${placeOf(at, first, bad)}`, {
    where: file,
    mend: "choose another tensor",
  });
}

/** Where element `at` of contexts from `first` on is. */
function placeOf({ context, tensor, width }: Place, first: number, at: number): string {
  const row = Math.floor(at / width);
  return `in tensor '${tensor}', sequence ${first + Math.floor(row / context)}, position ${row % context}`;
}
