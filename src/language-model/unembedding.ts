/**
 * What a direction in the residual stream does to a model's output by itself: through the final
 * norm and the unembedding, as the graph has them.
 */

import { messageOf, SaettaError } from "../util/errors.ts";
import type { LanguageModel } from "./load.ts";
import { cutAt, type OnnxGraph, parseOnnx, producersOf } from "./onnx-graph.ts";
import { loadRuntime, runtimeOptions } from "./session.ts";
import { structureOf } from "./structure.ts";

export interface Unembedding extends AsyncDisposable {
  /** Width of the residual stream. */
  readonly width: number;
  readonly tokens: number;
  /**
   * directions [m, width] -> their effects on the logits [m, tokens]: W_U (g * norm(v)), where norm
   * is the model's final LayerNorm or RMSNorm without its bias, g its gain and W_U the unembedding.
   * Computed as logits(v) - logits(0), in which biases cancel. As a norm ends in, the size of a
   * direction does not matter.
   */
  effects(directions: Float32Array): Promise<Float32Array>;
}

/**
 * The tensor in which the residual stream ends: the last sum of the stream that the output is made
 * of.
 */
export function endOfResidual(graph: OnnxGraph): string | undefined {
  const producers = producersOf(graph);
  const { residual } = structureOf(graph);
  const needed = new Set<string>();
  const open = [outputOf(graph)];
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    if (needed.has(name)) continue;
    needed.add(name);
    open.push(...(producers.get(name)?.inputs ?? []));
  }
  return graph.nodes.flatMap((node) => node.outputs).findLast((name) => residual.has(name) && needed.has(name));
}

function outputOf(graph: OnnxGraph): string {
  const name = graph.outputs.find((each) => each === "logits") ?? graph.outputs[0];
  if (name === undefined) throw new SaettaError("the model has no output", { where: graph.file });
  return name;
}

/**
 * Cuts the model down to its end and loads that. Throws SaettaError when its end is not a norm and
 * an unembedding, or there is no runtime.
 */
export async function openUnembedding(model: LanguageModel, threads: number): Promise<Unembedding> {
  const { graph, structure, path } = model;
  const { width } = structure;
  const from = endOfResidual(graph);
  const refuse = (what: string, cause?: unknown): never => {
    throw new SaettaError(`the end of the model is not understood: ${what}`, { where: path, cause });
  };
  if (from === undefined || width === undefined) return refuse("no residual stream is found");
  const output = outputOf(graph);
  const bytes = cutAt(graph, [output], { name: from, dtype: "float32" });
  const others = parseOnnx(bytes, path).inputs.filter((name) => name !== from);
  if (others.length > 0) refuse(`the logits need ${others.join(", ")} beside the residual stream`);
  const { InferenceSession, Tensor } = await loadRuntime();
  const session = await InferenceSession.create(bytes, runtimeOptions(path, threads)).catch((cause: unknown) =>
    refuse(messageOf(cause), cause),
  );
  const logits = async (rows: Float32Array): Promise<Float32Array> => {
    const fed = { [from]: new Tensor("float32", rows, [1, rows.length / width, width]) };
    const { data } = (await session.run(fed).catch((cause: unknown) => refuse(messageOf(cause), cause)))[output];
    if (!(data instanceof Float32Array)) return refuse("its output is not of float32");
    return data;
  };
  const zero = await logits(new Float32Array(width));
  if (structure.tokens !== undefined && zero.length !== structure.tokens) {
    refuse(`it gives ${zero.length} numbers a token, but knows ${structure.tokens} tokens`);
  }
  return {
    width,
    tokens: zero.length,
    async effects(directions) {
      const found = (await logits(directions)).slice();
      for (let i = 0; i < found.length; i++) found[i] -= zero[i % zero.length];
      return found;
    },
    [Symbol.asyncDispose]: () => session.release(),
  };
}
