/** ONNX Runtime, which is an optional part of an installation and is loaded when a model is. */

import { hasCode, messageOf, SaettaError } from "../util/errors.ts";
import { decodeFloat16, encodeFloat16 } from "../util/float16.ts";
import { weightsFolder } from "./external-data.ts";
import { tokenInput } from "./structure.ts";

const VERSION = "1.30.0";

/** A tensor that a run returned: row-major values of `shape`. */
export interface Activations {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

/**
 * An output as the model declares it. `type`: "float32", "float16", ...; `rank`: undefined where it
 * is not known before a run.
 */
export interface Output {
  readonly name: string;
  readonly type: string;
  readonly rank: number | undefined;
}

export interface Session {
  readonly outputs: readonly Output[];
  /** Rows and columns that `tokens` must have, where the model was exported for one size only. */
  readonly fixed: { readonly batch: number | undefined; readonly context: number | undefined };
  /**
   * Runs token ids [batch, context]; returns the outputs `names`, which must be float tensors, by
   * name. `given`: the values of the tensor that the model is given.
   */
  run(
    tokens: Int32Array,
    batch: number,
    names: readonly string[],
    given?: Activations,
  ): Promise<Map<string, Activations>>;
  close(): Promise<void>;
}

/**
 * Values of the inputs that models take next to token ids, for element i of [batch, context],
 * [context] or []: no padding, one segment, no cache, all logits.
 */
const OTHER_INPUTS: Readonly<Record<string, (i: number, context: number) => number>> = {
  attention_mask: () => 1,
  position_ids: (i, context) => i % context,
  cache_position: (i, context) => i % context,
  token_type_ids: () => 0,
  use_cache_branch: () => 0,
  num_logits_to_keep: () => 0,
  logits_to_keep: () => 0,
};

/**
 * Keys and values of tokens before the context: past_key_values.0.key and the like, [batch, heads,
 * past, width] in some order. They are given with a past of length 0.
 */
const PAST = /^past([_.]|$)/;

export interface SessionOptions {
  /** An input of float32 or float16 whose values every run is given. */
  readonly given?: string;
  /** The input that takes token ids, if it is there; default: the one that looks like it. */
  readonly tokens?: string | undefined;
  /**
   * What the runtime may make of the graph; default: all that it can. With "disabled" every node is
   * computed as it stands.
   */
  readonly optimization?: "disabled" | "basic" | "all";
}

type Runtime = typeof import("onnxruntime-node");

/**
 * The runtime, from `load`. Throws SaettaError that says how to install it where it is missing or
 * does not run here.
 */
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

/** `file`: in the folder of which weights in other files are looked for. */
export function runtimeOptions(file: string, threads: number, optimization: "disabled" | "basic" | "all" = "all") {
  return {
    executionProviders: ["cpu"],
    graphOptimizationLevel: optimization,
    intraOpNumThreads: threads,
    logSeverityLevel: 4,
    extra: {
      session: {
        // Threads that wait by spinning win nothing on an idle machine and halve the speed on a
        // busy one.
        intra_op: { allow_spinning: "0" },
        model_external_initializers_file_folder_path: weightsFolder(file).folder,
      },
    },
  } as const;
}

/**
 * Loads a model from the bytes of a .onnx file to run on the CPU with `threads` threads. `file`
 * names it in errors. Throws SaettaError when there is no runtime, or it does not take the model.
 */
export async function openSession(
  model: Uint8Array,
  file: string,
  threads: number,
  { given, tokens: tokenName, optimization = "all" }: SessionOptions = {},
): Promise<Session> {
  const { InferenceSession, Tensor } = await loadRuntime();
  const session = await InferenceSession.create(model, runtimeOptions(file, threads, optimization)).catch(
    (cause: unknown) => {
      throw new SaettaError(`ONNX Runtime does not take the model (${messageOf(cause)})`, { where: file, cause });
    },
  );
  const idsInto = tokenName ?? tokenInput({ inputs: session.inputNames });
  const tokens = session.inputMetadata.find(({ name }) => name === idsInto);
  if (tokens === undefined && given === undefined)
    throw new SaettaError("the model has no input 'input_ids'", { where: file });
  const tokenShape = tokens?.isTensor ? tokens.shape : [];
  const inputs = session.inputMetadata
    .filter(({ name }) => name !== given)
    .map((input) => feederOf(input, input.name === idsInto, tokenShape, Tensor, file));
  const size = (axis: number): number | undefined => {
    const length = tokenShape[axis];
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
      for (const { name, feed } of inputs) feeds[name] = feed(ids, batch, context);
      if (given !== undefined && values !== undefined) {
        feeds[given] = half
          ? float16Tensor(Tensor, halvesOf(values.values), values.shape)
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

type TensorClass = Runtime["Tensor"];
type RuntimeTensor = InstanceType<TensorClass>;
type Metadata = Awaited<ReturnType<Runtime["InferenceSession"]["create"]>>["inputMetadata"][number];

interface Feeder {
  readonly name: string;
  readonly feed: (ids: Int32Array, batch: number, context: number) => RuntimeTensor;
}

/**
 * What an input is given in each run. `tokens`: the shape that the model declares of the token ids.
 * Throws SaettaError for an input of which nothing is known.
 */
function feederOf(
  input: Metadata,
  isTokens: boolean,
  tokens: readonly unknown[],
  Tensor: TensorClass,
  file: string,
): Feeder {
  const { name } = input;
  const type = input.isTensor ? input.type : "no tensor";
  const shape = input.isTensor ? input.shape : [];
  if (PAST.test(name) && (type === "float32" || type === "float16")) {
    const past = emptyPast(shape, tokens);
    if (past !== undefined) {
      const feed: Feeder["feed"] = (_, batch) =>
        type === "float32"
          ? new Tensor("float32", new Float32Array(0), past(batch))
          : float16Tensor(Tensor, new Uint16Array(0), past(batch));
      return { name, feed };
    }
  }
  const value = OTHER_INPUTS[name];
  if ((type === "int64" || type === "int32" || type === "bool") && (isTokens || value !== undefined)) {
    const feed: Feeder["feed"] = (ids, batch, context) => {
      const dims = sizesOf(name, shape.length, batch, context);
      const numbers = isTokens
        ? ids
        : Int32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => value!(i, context));
      if (type === "int64") return new Tensor("int64", BigInt64Array.from(numbers, BigInt), dims);
      return type === "int32" ? new Tensor("int32", numbers, dims) : new Tensor("bool", Uint8Array.from(numbers), dims);
    };
    return { name, feed };
  }
  throw new SaettaError(`the model wants an input '${name}' (${type}), of which nothing is known here`, {
    where: file,
    mend: "export it with input_ids only",
  });
}

/** The dimensions that an input of integers is given. */
function sizesOf(name: string, rank: number, batch: number, context: number): number[] {
  if (name.endsWith("logits_to_keep")) return rank === 0 ? [] : [1];
  if (name === "use_cache_branch") return [1];
  return name === "cache_position" ? [context] : [batch, context];
}

/**
 * The dimensions of keys or values of no tokens, for a number of contexts. Of the axes whose size
 * is open, the batch is the one that the token ids call so, or the first; the others are the past.
 * undefined where no axis can be 0.
 */
function emptyPast(shape: readonly unknown[], tokens: readonly unknown[]): ((batch: number) => number[]) | undefined {
  const open = [...shape.keys()].filter((axis) => typeof shape[axis] !== "number");
  const called = open.find((axis) => shape[axis] !== "" && shape[axis] === tokens[0]);
  const batchAxis = called ?? (typeof tokens[0] === "number" || open.length < 2 ? undefined : open[0]);
  const isPast = (axis: number) => axis !== batchAxis && (open.includes(axis) || shape[axis] === 0);
  if (![...shape.keys()].some(isPast)) return undefined;
  return (batch) => shape.map((size, axis) => (axis === batchAxis ? batch : isPast(axis) ? 0 : (size as number)));
}

/**
 * Where the language has a Float16Array, a tensor of float16 is made one, which the native part
 * takes for empty: bits it gets as what they are called afterwards.
 */
function float16Tensor(Tensor: TensorClass, bits: Uint16Array, shape: readonly number[]): RuntimeTensor {
  return Object.assign(new Tensor("uint16", bits, shape), { type: "float16" }) as RuntimeTensor;
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
