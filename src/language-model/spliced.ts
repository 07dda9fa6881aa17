/**
 * A language model with one of its tensors in reach: the activations and logits of the model as it
 * is, and the logits when other values stand in the tensor's place, for all that reads it.
 */

import { bytesOf } from "../util/bytes.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import type { LanguageModel } from "./load.ts";
import { cutAt } from "./onnx-graph.ts";
import { type Activations, openSession, type Session } from "./session.ts";
import { tokenInput } from "./structure.ts";
import { checkTensorName } from "./tensors.ts";

/** logits [batch, context, vocabulary], activations [batch, context, width], row-major. */
export interface Original {
  readonly activations: Float32Array;
  readonly logits: Float32Array;
}

export interface SplicedModel {
  readonly width: number;
  readonly vocabulary: number;
  /** Contexts that a run must have, where the model was exported for one number only. */
  readonly batch: number | undefined;
  /**
   * Largest difference between a logit of the model as it is and one of the model whose tensor is
   * given its own values, on the trial's tokens. 0: the same bits.
   */
  readonly identityDifference: number;
  /** Token ids [batch, context] -> what the model makes of them. */
  original(ids: Int32Array, batch: number): Promise<Original>;
  /** The logits with `activations` [batch, context, width] in the place of the tensor. */
  spliced(ids: Int32Array, batch: number, activations: Float32Array): Promise<Float32Array>;
  close(): Promise<void>;
}

/**
 * The output [batch, context, vocabulary] of a model. Throws SaettaError where it is not plain
 * which that is.
 */
function logitsOf({ graph, path }: LanguageModel): string {
  if (graph.outputs.includes("logits")) return "logits";
  const [only, ...more] = graph.outputs;
  if (only !== undefined && more.length === 0) return only;
  throw new SaettaError(`the model has no output 'logits' (it has ${graph.outputs.join(", ")})`, {
    where: path,
    mend: "export it with a language-model head",
  });
}

/**
 * A session that computes the tensor and nothing after it: ids [batch, context] -> [batch, context,
 * width].
 */
export function openHead(model: LanguageModel, tensor: string, threads: number): Promise<Session> {
  checkTensorName(model.graph, tensor);
  return openSession(cutAt(model.graph, [tensor]), model.path, threads);
}

/**
 * Opens the model twice, whole and from the tensor on. The runtime fuses nodes, and could fuse
 * other ones in the two: then it is told to fuse nothing, so that each node computes the same in
 * both. `trial`: token ids [1, context] that this is found out on. Throws UsageError when the
 * tensor is none of shape [batch, sequence, width], or the logits do not depend on it.
 */
export async function openSpliced(
  model: LanguageModel,
  tensor: string,
  threads: number,
  trial: Int32Array,
): Promise<SplicedModel> {
  checkTensorName(model.graph, tensor);
  const fused = await openAt("all", model, tensor, threads, trial);
  if (fused.identityDifference === 0) return fused;
  await fused.close();
  return openAt("disabled", model, tensor, threads, trial);
}

async function openAt(
  optimization: "all" | "disabled",
  model: LanguageModel,
  tensor: string,
  threads: number,
  trial: Int32Array,
): Promise<SplicedModel> {
  const { graph, path } = model;
  const logits = logitsOf(model);
  const whole = await openSession(cutAt(graph, [tensor, logits]), path, threads, { optimization });
  let rest: Session | undefined;
  const close = async () => {
    await whole.close();
    await rest?.close();
  };
  try {
    const first = await runWhole(trial, 1);
    const width = first.activations.shape[2]!;
    const vocabulary = first.logits.shape[2]!;
    const dtype = whole.outputs.find(({ name }) => name === tensor)?.type === "float16" ? "float16" : "float32";
    const given = { name: tensor, dtype, width } as const;
    rest = await openSession(cutAt(graph, [logits], given), path, threads, {
      optimization,
      given: tensor,
      tokens: tokenInput(graph),
    });
    const session = rest;
    const spliced = async (ids: Int32Array, batch: number, activations: Float32Array): Promise<Float32Array> => {
      const shape = [batch, ids.length / batch, width];
      const { values } = (await session.run(ids, batch, [logits], { shape, values: activations })).get(logits)!;
      if (values.length === ids.length * vocabulary) return values;
      throw new SaettaError(`${values.length} logits for ${ids.length} tokens of a vocabulary of ${vocabulary}`, {
        where: path,
      });
    };
    const again = await spliced(trial, 1, first.activations.values);
    return {
      width,
      vocabulary,
      batch: whole.fixed.batch,
      identityDifference: largestDifference(first.logits.values, again),
      original: async (ids, batch) => {
        const found = await runWhole(ids, batch);
        return { activations: found.activations.values, logits: found.logits.values };
      },
      spliced,
      close,
    };
  } catch (thrown) {
    await close();
    throw thrown;
  }

  async function runWhole(ids: Int32Array, batch: number): Promise<{ activations: Activations; logits: Activations }> {
    const context = ids.length / batch;
    const found = await whole.run(ids, batch, [tensor, logits]);
    const check = (name: string, last: string): Activations => {
      const { shape, values } = found.get(name)!;
      if (shape.length === 3 && shape[0] === batch && shape[1] === context && values.length === ids.length * shape[2]!)
        return { shape, values };
      const words = `has the shape [${shape.join(", ")}] for ${batch} contexts of ${context} tokens, not [batch, sequence, ${last}]`;
      throw new UsageError(`the tensor '${name}' ${words}`, {
        where: path,
        mend: "saetta harvest --list-tensors shows those that can be used",
      });
    };
    return { activations: check(tensor, "width"), logits: check(logits, "vocabulary") };
  }
}

/** NaN where one of them is NaN and the other is not. */
function largestDifference(a: Float32Array, b: Float32Array): number {
  if (Buffer.compare(bytesOf(a), bytesOf(b)) === 0) return 0;
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    if (Object.is(a[i], b[i])) continue;
    const off = Math.abs(a[i]! - b[i]!);
    if (!(off <= largest)) largest = off;
  }
  return largest;
}
