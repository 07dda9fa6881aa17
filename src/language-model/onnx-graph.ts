/**
 * An ONNX model as a graph of named tensors, and the two edits that are needed: cutting it at named
 * tensors, and having one of its tensors given instead of computed. What is kept is kept byte for
 * byte. Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
 */

import { FormatError, UsageError } from "../util/errors.ts";
import { integer, string, wrap } from "../util/protobuf.ts";
import { type ExternalData, externalData, weightsFolder } from "./external-data.ts";
import { type Field, fieldsOf, integersOf, type Message, textOf } from "./protobuf.ts";

const MODEL = { graph: 7, training: 20, functions: 25 };
const GRAPH = {
  node: 1,
  initializer: 5,
  input: 11,
  output: 12,
  valueInfo: 13,
  quantization: 14,
  sparseInitializer: 15,
};
const TRAINING = { initialization: 1, algorithm: 2 };
const FUNCTION = { node: 7, attribute: 11 };
const NODE = { input: 1, output: 2, opType: 4, attribute: 5 };
const ATTRIBUTE = { tensor: 5, graph: 6, tensors: 10, graphs: 11, sparseTensor: 22, sparseTensors: 23 };
const TENSOR = { dims: 1, dtype: 2, name: 8, externalData: 13, dataLocation: 14 };
/** Values of TensorProto.DataType. */
const DTYPES = { float32: 1, float16: 10 };
const SPARSE = { values: 1, indices: 2 };
/** Deeper nesting of If and Loop bodies than any exporter writes; bounds the recursion. */
const MAX_DEPTH = 32;

/**
 * One operation. `inputs`: the tensors it reads, those that its If and Loop bodies take from
 * outside included.
 */
export interface Node {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly raw: Uint8Array;
}

interface Named {
  readonly name: string;
  readonly raw: Uint8Array;
}

/** A weight: `shape` [..] as stored. */
export interface Initializer extends Named {
  readonly shape: readonly number[];
  /** Where its bytes are, if not in the file. */
  readonly external?: ExternalData;
}

export interface OnnxGraph {
  readonly file: string;
  /** In an order in which they can run. */
  readonly nodes: readonly Node[];
  readonly initializers: ReadonlyMap<string, Initializer>;
  /** Inputs that a run must be given, by name. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly parts: {
    readonly model: readonly Uint8Array[];
    readonly graph: readonly Uint8Array[];
    readonly inputs: readonly Named[];
    readonly notes: readonly Named[];
  };
}

/**
 * The graph of the bytes of a .onnx file. Throws FormatError when they are not one. Files that it
 * names are not looked at: `checkExternalData` does that.
 */
export function parseOnnx(bytes: Uint8Array, file: string): OnnxGraph {
  const model: Uint8Array[] = [];
  const graph: Uint8Array[] = [];
  const nodes: Node[] = [];
  const initializers = new Map<string, Initializer>();
  const inputs: Named[] = [];
  const notes: Named[] = [];
  const outputs: string[] = [];
  for (const part of fieldsOf({ file, at: 0, bytes })) {
    if (part.number !== MODEL.graph) {
      checkOther(part);
      model.push(part.raw);
    } else {
      for (const field of fieldsOf(messageIn(part))) {
        if (field.number === GRAPH.node) nodes.push(nodeOf(messageIn(field), field.raw, 0));
        else if (field.number === GRAPH.initializer || field.number === GRAPH.sparseInitializer) {
          const weight = initializerOf(field, false);
          initializers.set(weight.name, weight);
        } else if (field.number === GRAPH.input) inputs.push(namedOf(field));
        else if (field.number === GRAPH.output) outputs.push(namedOf(field).name);
        else if (field.number === GRAPH.valueInfo || field.number === GRAPH.quantization) notes.push(namedOf(field));
        else graph.push(field.raw);
      }
    }
  }
  if (nodes.length === 0) throw new FormatError("not an ONNX model: it has no graph with nodes", { where: file });
  const required = inputs.map(({ name }) => name).filter((name) => !initializers.has(name));
  return { file, nodes, initializers, inputs: required, outputs, parts: { model, graph, inputs, notes } };
}

/** The names of all tensors that nodes write, in the order of the graph. */
export function tensorNames(graph: OnnxGraph): string[] {
  return graph.nodes.flatMap((node) => node.outputs);
}

/** The node that writes each tensor. Throws FormatError when two write the same one. */
export function producersOf(graph: OnnxGraph): Map<string, Node> {
  const producers = new Map<string, Node>();
  for (const node of graph.nodes) {
    for (const name of node.outputs) {
      if (producers.has(name))
        throw new FormatError(`not a valid ONNX graph: two nodes write '${name}'`, { where: graph.file });
      producers.set(name, node);
    }
  }
  return producers;
}

/**
 * A tensor [batch, sequence, width] that a run is given instead of computing it; of any shape where
 * no width is known.
 */
export interface GivenTensor {
  readonly name: string;
  readonly dtype: "float32" | "float16";
  readonly width?: number;
}

/**
 * The bytes of a model whose outputs are the tensors `names` and nothing else: nodes, weights and
 * inputs that they do not need are gone. The outputs carry no type; the runtime infers it. Every
 * name must be one of `tensorNames`. A tensor that is `given` becomes an input of the model: all
 * that reads it, residual connections and the bodies of If and Loop too, reads what is given.
 * Throws UsageError when no output depends on it.
 */
export function cutAt(graph: OnnxGraph, names: readonly string[], given?: GivenTensor): Uint8Array {
  const producers = producersOf(graph);
  const needed = new Set<string>();
  const kept = new Set<Node>();
  const open = [...names];
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    if (needed.has(name)) continue;
    needed.add(name);
    if (name === given?.name) continue;
    const node = producers.get(name);
    if (node === undefined || kept.has(node)) continue;
    kept.add(node);
    for (const input of node.inputs) open.push(input);
  }
  if (given !== undefined && !needed.has(given.name)) {
    throw new UsageError(
      `nothing of ${names.map((name) => `'${name}'`).join(", ")} depends on the tensor '${given.name}'`,
      {
        where: graph.file,
        mend: "choose a tensor that comes before the output",
      },
    );
  }
  const isNeeded = ({ name }: Named): boolean => needed.has(name);
  const body = [
    ...graph.parts.graph,
    ...graph.nodes
      .filter((node) => kept.has(node))
      .map((node) => (given && node.outputs.includes(given.name) ? withoutOutput(node, given.name) : node.raw)),
    ...[...graph.initializers.values()]
      .filter(isNeeded)
      .map((weight) => placed(weight, weightsFolder(graph.file).prefix)),
    ...graph.parts.inputs.filter(isNeeded).map(({ raw }) => raw),
    ...(given === undefined ? [] : wrap(GRAPH.input, valueInfo(given))),
    ...graph.parts.notes
      .filter((it) => isNeeded(it) && !names.includes(it.name) && it.name !== given?.name)
      .map(({ raw }) => raw),
    ...names.flatMap((name) => wrap(GRAPH.output, string(1, name))),
  ];
  return Buffer.concat([...graph.parts.model, ...wrap(MODEL.graph, body)]);
}

/** The initializer with `prefix` before the name of the file that its bytes are in. */
function placed({ raw, external }: Initializer, prefix: string): Uint8Array {
  if (external === undefined || prefix === "") return raw;
  const [field] = fieldsOf({ file: "", at: 0, bytes: raw });
  const parts = [...fieldsOf(messageIn(field!))].flatMap((part) =>
    part.number === TENSOR.externalData && entryOf(messageIn(part))[0] === "location"
      ? wrap(TENSOR.externalData, [...string(1, "location"), ...string(2, prefix + external.location)])
      : [part.raw],
  );
  return Buffer.concat(wrap(GRAPH.initializer, parts));
}

/** The node with another name for one of its outputs, under which nobody reads it. */
function withoutOutput(node: Node, name: string): Uint8Array {
  const [field] = fieldsOf({ file: "", at: 0, bytes: node.raw });
  const parts = [...fieldsOf(messageIn(field!))].flatMap((part) =>
    part.number === NODE.output && textOf(part) === name ? string(NODE.output, `${name} (not used)`) : [part.raw],
  );
  return Buffer.concat(wrap(GRAPH.node, parts));
}

/**
 * A ValueInfoProto: name = 1, type = 2; TypeProto: tensor_type = 1; Tensor: elem_type = 1, shape =
 * 2; TensorShapeProto: dim = 1; Dimension: dim_value = 1, dim_param = 2.
 */
function valueInfo({ name, dtype, width }: GivenTensor): Uint8Array[] {
  const sizes =
    width === undefined
      ? []
      : [string(2, "batch of a given tensor"), string(2, "sequence of a given tensor"), integer(1, width)];
  const shape =
    sizes.length === 0
      ? []
      : wrap(
          2,
          sizes.flatMap((size) => wrap(1, size)),
        );
  return [...string(1, name), ...wrap(2, wrap(1, [...integer(1, DTYPES[dtype]), ...shape]))];
}

function messageIn(field: Field): Message {
  if (field.type === "bytes") return field.body;
  throw new FormatError(`not an ONNX model: field ${field.number} before byte ${field.body.at} is not a message`, {
    where: field.body.file,
  });
}

function nodeOf(message: Message, raw: Uint8Array, depth: number): Node {
  let op = "";
  const inputs: string[] = [];
  const outputs: string[] = [];
  for (const field of fieldsOf(message)) {
    // An empty name stands for an optional input or output that is left out.
    if (field.number === NODE.input && field.body.bytes.length > 0) inputs.push(textOf(field));
    else if (field.number === NODE.output && field.body.bytes.length > 0) outputs.push(textOf(field));
    else if (field.number === NODE.opType) op = textOf(field);
    else if (field.number === NODE.attribute) addReadsOfAttribute(inputs, messageIn(field), depth);
  }
  return { op, inputs, outputs, raw };
}

/**
 * Looks for external data in what stands beside the graph: functions that nodes call, and what
 * training would run.
 */
function checkOther(part: Field): void {
  if (part.number !== MODEL.functions && part.number !== MODEL.training) return;
  for (const field of fieldsOf(messageIn(part))) {
    if (part.number === MODEL.training) {
      if (field.number === TRAINING.initialization || field.number === TRAINING.algorithm)
        readsOfBody(messageIn(field), 1);
    } else if (field.number === FUNCTION.node) nodeOf(messageIn(field), field.raw, 1);
    else if (field.number === FUNCTION.attribute) addReadsOfAttribute([], messageIn(field), 1);
  }
}

/**
 * Adds what the bodies inside an attribute read: their nodes' inputs and their outputs, minus what
 * they make themselves.
 */
function addReadsOfAttribute(reads: string[], message: Message, depth: number): void {
  for (const field of fieldsOf(message)) {
    if (field.number === ATTRIBUTE.tensor || field.number === ATTRIBUTE.tensors) tensorOf(messageIn(field));
    else if (field.number === ATTRIBUTE.sparseTensor || field.number === ATTRIBUTE.sparseTensors)
      sparseTensorOf(messageIn(field));
    else if (field.number === ATTRIBUTE.graph || field.number === ATTRIBUTE.graphs) {
      for (const name of readsOfBody(messageIn(field), depth + 1)) reads.push(name);
    }
  }
}

function readsOfBody(message: Message, depth: number): string[] {
  if (depth > MAX_DEPTH)
    throw new FormatError(`the graph nests more than ${MAX_DEPTH} bodies at byte ${message.at}`, {
      where: message.file,
    });
  const reads = new Set<string>();
  const own = new Set<string>();
  for (const field of fieldsOf(message)) {
    if (field.number === GRAPH.node) {
      const node = nodeOf(messageIn(field), field.raw, depth);
      for (const name of node.inputs) reads.add(name);
      for (const name of node.outputs) own.add(name);
    } else if (field.number === GRAPH.output) reads.add(namedOf(field).name);
    else if (field.number === GRAPH.input) own.add(namedOf(field).name);
    else if (field.number === GRAPH.initializer || field.number === GRAPH.sparseInitializer)
      own.add(initializerOf(field).name);
  }
  return [...reads].filter((name) => !own.has(name));
}

/** A ValueInfoProto or TensorAnnotation: its name is field 1. */
function namedOf(field: Field): Named {
  let name = "";
  for (const part of fieldsOf(messageIn(field))) if (part.number === 1) name = textOf(part);
  return { name, raw: field.raw };
}

function initializerOf(field: Field, inFile = true): Initializer {
  const message = messageIn(field);
  return {
    ...(field.number === GRAPH.initializer ? tensorOf(message, inFile) : sparseTensorOf(message)),
    raw: field.raw,
  };
}

function sparseTensorOf(message: Message): Omit<Initializer, "raw"> {
  let name = "";
  for (const field of fieldsOf(message)) {
    if (field.number === SPARSE.values) name = tensorOf(messageIn(field)).name;
    else if (field.number === SPARSE.indices) tensorOf(messageIn(field));
  }
  return { name, shape: [] };
}

/** `inFile`: its bytes must be in this file. */
function tensorOf(message: Message, inFile = true): Omit<Initializer, "raw"> {
  let name = "";
  let dtype = 0;
  let isExternal = false;
  const shape: number[] = [];
  const entries = new Map<string, string>();
  for (const field of fieldsOf(message)) {
    if (field.number === TENSOR.name) name = textOf(field);
    else if (field.number === TENSOR.dims) for (const size of integersOf(field)) shape.push(size);
    else if (field.number === TENSOR.dtype) dtype = field.value;
    else if (field.number === TENSOR.dataLocation) isExternal = field.value !== 0;
    else if (field.number === TENSOR.externalData) entries.set(...entryOf(messageIn(field)));
  }
  if (!isExternal) return { name, shape };
  if (inFile) {
    throw new FormatError(`'${name}' is a constant whose bytes are in another file; only weights can be there`, {
      where: message.file,
      mend: "save the model as one file: onnx.save(onnx.load(path), path, save_as_external_data=False)",
    });
  }
  return { name, shape, external: externalData(name, entries, shape, dtype, message.file) };
}

/** A StringStringEntryProto: key = 1, value = 2. */
function entryOf(message: Message): [key: string, value: string] {
  const entry: [string, string] = ["", ""];
  for (const field of fieldsOf(message))
    if (field.number === 1 || field.number === 2) entry[field.number - 1] = textOf(field);
  return entry;
}
