/** Small ONNX files, made field by field, with tokenizers that suit them. */

export function field(number: number, value: number | string | Uint8Array): Buffer {
  if (typeof value === "number") return Buffer.from([...varint(number * 8), ...varint(value)]);
  const bytes = Buffer.from(value);
  return Buffer.concat([Buffer.from([...varint(number * 8 + 2), ...varint(bytes.length)]), bytes]);
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) | 128, ...varint(Math.floor(value / 128))];
}

export const FLOAT = 1;
export const INT64 = 7;
export const BOOL = 9;
export const FLOAT16 = 10;

/**
 * A TensorProto. `external`: its values are in another file, as these entries of external_data say.
 */
export function tensor(
  name: string,
  shape: readonly number[],
  values: Float32Array | BigInt64Array | Uint8Array,
  external?: Readonly<Record<string, string>>,
): Buffer {
  const type = values instanceof Float32Array ? FLOAT : values instanceof Uint8Array ? BOOL : INT64;
  const data = field(9, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  return Buffer.concat([
    ...shape.map((size) => field(1, size)),
    field(2, type),
    field(8, name),
    ...(external === undefined
      ? [data]
      : Object.entries(external).map((entry) => field(13, Buffer.concat([field(1, entry[0]), field(2, entry[1])])))),
    external === undefined ? Buffer.alloc(0) : field(14, 1),
  ]);
}

/**
 * An attribute that holds a graph (type GRAPH = 5), an integer (INT = 2) or a tensor (TENSOR = 4).
 */
export function attribute(name: string, value: { graph: Buffer } | { int: number } | { tensor: Buffer }): Buffer {
  const [content, type] =
    "graph" in value
      ? [field(6, value.graph), 5]
      : "int" in value
        ? [field(3, value.int), 2]
        : [field(5, value.tensor), 4];
  return Buffer.concat([field(1, name), content, field(20, type)]);
}

export function node(
  op: string,
  inputs: readonly string[],
  outputs: readonly string[],
  attributes: readonly Buffer[] = [],
): Buffer {
  return Buffer.concat([
    ...inputs.map((name) => field(1, name)),
    ...outputs.map((name) => field(2, name)),
    field(4, op),
    ...attributes.map((it) => field(5, it)),
  ]);
}

/** A tensor's name and type; dimensions without a number are dynamic. */
export function valueInfo(name: string, type: number, shape: readonly (number | string)[]): Buffer {
  const sizes = shape.map((size) => field(1, typeof size === "number" ? field(1, size) : field(2, size)));
  return Buffer.concat([
    field(1, name),
    field(2, field(1, Buffer.concat([field(1, type), field(2, Buffer.concat(sizes))]))),
  ]);
}

export interface Parts {
  readonly nodes: readonly Buffer[];
  readonly initializers?: readonly Buffer[];
  readonly inputs?: readonly Buffer[];
  readonly outputs: readonly Buffer[];
}

export function graph({ nodes, initializers = [], inputs = [], outputs }: Parts): Buffer {
  return Buffer.concat([
    ...nodes.map((it) => field(1, it)),
    field(2, "g"),
    ...initializers.map((it) => field(5, it)),
    ...inputs.map((it) => field(11, it)),
    ...outputs.map((it) => field(12, it)),
  ]);
}

export function model(parts: Parts): Buffer {
  return Buffer.concat([field(1, 8), field(7, graph(parts)), field(8, field(2, 17))]);
}

/**
 * Adds a tensor to a model's outputs and changes nothing else: messages that follow one another are
 * one message.
 */
export function exposed(bytes: Uint8Array, name: string): Buffer {
  return Buffer.concat([bytes, field(7, field(12, field(1, name)))]);
}

/**
 * A model that looks tokens up in `table` [rows, 2] and doubles them: tensors "embedded" and
 * "doubled" [batch, sequence, 2].
 */
export function tinyModel(table: readonly number[], extra: Partial<Parts> = {}): Buffer {
  const rows = table.length / 2;
  return model({
    nodes: [
      node("Gather", ["table", "input_ids"], ["embedded"]),
      node("Add", ["embedded", "embedded"], ["doubled"]),
      ...(extra.nodes ?? []),
    ],
    initializers: [tensor("table", [rows, 2], Float32Array.from(table)), ...(extra.initializers ?? [])],
    inputs: [valueInfo("input_ids", INT64, ["b", "s"]), ...(extra.inputs ?? [])],
    outputs: [valueInfo("doubled", FLOAT, ["b", "s", 2]), ...(extra.outputs ?? [])],
  });
}

/**
 * A tokenizer.json for the tokens given, each a character or, in angle brackets, a special token;
 * token i has id i.
 */
export function tinyTokenizer(tokens: readonly string[]): string {
  const ids = tokens.map((content, id) => ({ id, content, special: true }));
  return JSON.stringify({
    version: "1.0",
    added_tokens: ids.filter(({ content }) => content.startsWith("<")),
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, use_regex: true },
    post_processor: null,
    decoder: { type: "ByteLevel" },
    model: {
      type: "BPE",
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: [],
      unk_token: null,
    },
  });
}
