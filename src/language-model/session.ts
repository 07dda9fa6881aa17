/** ONNX Runtime, which is an optional part of an installation and is loaded when a model is. */

import { hasCode, messageOf, SaettaError } from "../util/errors.ts";
import { decodeFloat16, encodeFloat16 } from "../util/float16.ts";
import { tokenInput } from "./structure.ts";

const VERSION = "1.30.0";

/** A tensor that a run returned: row-major values of `shape`. */
export interface Activations {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

/** An output as the model declares it. `type`: "float32", "float16", ...; `rank`: undefined where it is not known before a run. */
export interface Output {
  readonly name: string;
  readonly type: string;
  readonly rank: number | undefined;
}

export interface Session {
  readonly outputs: readonly Output[];
  /** Rows and columns that `tokens` must have, where the model was exported for one size only. */
  readonly fixed: { readonly batch: number | undefined; readonly context: number | undefined };
  /** Runs token ids [batch, context]; returns the outputs `names`, which must be float tensors, by name. `given`: the values of the tensor that the model is given. */
  run(
    tokens: Int32Array,
    batch: number,
    names: readonly string[],
    given?: Activations,
  ): Promise<Map<string, Activations>>;
  close(): Promise<void>;
}

/** Values of the inputs that models take beside token ids, for element i of [batch, context]: no padding, one segment. */
const OTHER_INPUTS: Readonly<Record<string, (i: number, context: number) => number>> = {
  attention_mask: () => 1,
  position_ids: (i, context) => i % context,
  token_type_ids: () => 0,
};

export interface SessionOptions {
  /** An input of float32 or float16 whose values every run is given. */
  readonly given?: string;
  /** The input that takes token ids, if it is there; default: the one that looks like it. */
  readonly tokens?: string | undefined;
  /** What the runtime may make of the graph; default: all that it can. With "disabled" every node is computed as it stands. */
  readonly optimization?: "disabled" | "basic" | "all";
}

type Runtime = typeof import("onnxruntime-node");

/** The runtime, from `load`. Throws SaettaError that says how to install it where it is missing or does not run here. */
export async function loadRuntime(load: () => Promise<Runtime> = () => import("onnxruntime-node")): Promise<Runtime> {
  try {
    return await load();
  } catch (cause) {
    const install = `npm install --ignore-scripts onnxruntime-node@${VERSION}`;
    if (hasCode(cause, "ERR_MODULE_NOT_FOUND"))
      throw new SaettaError(`harvest and eval --loss need onnxruntime-node: ${install}`, { cause });
    throw new SaettaError(`onnxruntime-node cannot be loaded (${messageOf(cause)})`, {
      mend: `install it anew: ${install}`,
      cause,
    });
  }
}

/**
 * Loads a model from the bytes of a .onnx file to run on the CPU with `threads` threads. `file` names it in errors. Throws SaettaError when there is no runtime, or
 * it does not take the model.
 */
export async function openSession(
  model: Uint8Array,
  file: string,
  threads: number,
  { given, tokens: tokenName, optimization = "all" }: SessionOptions = {},
): Promise<Session> {
  const { InferenceSession, Tensor } = await loadRuntime();
  const options = {
    executionProviders: ["cpu"],
    graphOptimizationLevel: optimization,
    intraOpNumThreads: threads,
    logSeverityLevel: 4,
    // Threads that wait by spinning win nothing on an idle machine and halve the speed on a busy one.
    extra: { session: { intra_op: { allow_spinning: "0" } } },
  } as const;
  const session = await InferenceSession.create(model, options).catch((cause: unknown) => {
    throw new SaettaError(`ONNX Runtime does not take the model (${messageOf(cause)})`, { where: file, cause });
  });
  const idsInto = tokenName ?? tokenInput({ inputs: session.inputNames });
  const inputs = session.inputMetadata
    .filter(({ name }) => name !== given)
    .map((input) => {
      const isTokens = input.name === idsInto;
      const value = OTHER_INPUTS[input.name];
      if (!input.isTensor || (input.type !== "int64" && input.type !== "int32") || !(isTokens || value !== undefined)) {
        const type = input.isTensor ? input.type : "no tensor";
        throw new SaettaError(`the model wants an input '${input.name}' (${type}), of which nothing is known here`, {
          where: file,
          mend: "export it with input_ids only, without past keys and values",
        });
      }
      return { name: input.name, type: input.type, shape: input.shape, value: isTokens ? undefined : value };
    });
  const tokens = inputs.find(({ value }) => value === undefined);
  if (tokens === undefined && given === undefined)
    throw new SaettaError("the model has no input 'input_ids'", { where: file });
  const size = (axis: number): number | undefined => {
    const length = tokens?.shape[axis];
    return typeof length === "number" ? length : undefined;
  };
  const half = session.inputMetadata.some(
    (input) => input.name === given && input.isTensor && input.type === "float16",
  );

  return {
    outputs: session.outputMetadata.map((output) => {
      if (!output.isTensor) return { name: output.name, type: "no tensor", rank: undefined };
      return {
        name: output.name,
        type: output.type,
        rank: output.shape.length === 0 ? undefined : output.shape.length,
      };
    }),
    fixed: { batch: size(0), context: size(1) },
    async run(ids, batch, names, values) {
      const context = ids.length / batch;
      const feeds: Record<string, InstanceType<typeof Tensor>> = {};
      for (const { name, type, value } of inputs) {
        const numbers = value === undefined ? ids : ids.map((_, i) => value(i, context));
        feeds[name] = new Tensor(type, type === "int64" ? BigInt64Array.from(numbers, BigInt) : numbers, [
          batch,
          context,
        ]);
      }
      if (given !== undefined && values !== undefined) {
        // Where the language has a Float16Array, a tensor of float16 is made one, which the native part takes for empty: bits it gets as what they are called afterwards.
        feeds[given] = half
          ? Object.assign(new Tensor("uint16", halvesOf(values.values), values.shape), { type: "float16" })
          : new Tensor("float32", values.values, values.shape);
      }
      const fetched = await session.run(feeds, [...names]).catch((cause: unknown) => {
        throw new SaettaError(`ONNX Runtime failed on ${batch} contexts of ${context} tokens (${messageOf(cause)})`, {
          where: file,
          cause,
        });
      });
      const results = new Map<string, Activations>();
      for (const name of names) {
        const { dims, data } = fetched[name]!;
        results.set(name, { shape: dims, values: floatsOf(data, name, file) });
      }
      return results;
    },
    close: () => session.release(),
  };
}

/** The nearest float16, as bits. */
function halvesOf(values: Float32Array): Uint16Array {
  const halves = new Uint16Array(values.length);
  encodeFloat16(values, halves);
  return halves;
}

/** float16 comes as bits in a Uint16Array, or in a Float16Array where the language has one. */
function floatsOf(data: unknown, name: string, file: string): Float32Array {
  if (data instanceof Float32Array) return data;
  if (ArrayBuffer.isView(data) && (data instanceof Uint16Array || data.constructor.name === "Float16Array")) {
    return decodeFloat16(new Uint16Array(data.buffer, data.byteOffset, data.byteLength / 2));
  }
  throw new SaettaError(`the tensor '${name}' is not of float32 or float16`, { where: file });
}
