/** Activations of one HDF5 file as a Source: `[n_seq, T, d]` or `[n, d]`, with token ids and the origin where the file has them. */

import { HDF5_BYTES, type Hdf5DType, isFloat } from "../formats/hdf5-datatype.ts";
import { type Hdf5Dataset, type Hdf5File, openHdf5 } from "../formats/hdf5-read.ts";
import { FormatError, SaettaError } from "../util/errors.ts";
import type { Origin, RowDType, Source } from "./source.ts";

/** The dataset that holds the activations unless another is named. */
export const DEFAULT_DATASET = "hidden_states";
const TOKENS = "tokens";

/** Opens `dataset`, or `hidden_states`, or else the only dataset that could be meant. Throws SaettaError or FormatError naming the file. */
export async function openHdf5Source(path: string, dataset?: string): Promise<Source> {
  const file = await openHdf5(path);
  try {
    return sourceOf(file, choose(file, dataset?.replace(/^\/+/, "")));
  } catch (thrown) {
    await file.close();
    throw thrown;
  }
}

function choose(file: Hdf5File, name: string | undefined): Hdf5Dataset {
  const named = file.datasets.find((dataset) => dataset.name === (name ?? DEFAULT_DATASET));
  if (named !== undefined) return named;
  const likely = file.datasets.filter((dataset) => isFloat(dataset.dtype) && (dataset.shape.length === 2 || dataset.shape.length === 3));
  const only = likely[0];
  if (name === undefined && only !== undefined && likely.length === 1) return only;
  throw new SaettaError(`no dataset ${name ?? DEFAULT_DATASET}; the file has ${listed(file.datasets)}`, {
    where: file.path,
    mend: "name one with --dataset",
  });
}

function sourceOf(file: Hdf5File, dataset: Hdf5Dataset): Source {
  const { name, shape, type } = dataset;
  const where = file.path;
  if (shape.length !== 2 && shape.length !== 3 && dataset.problem === undefined) {
    throw new FormatError(`${inWords(dataset)} has ${shape.length} axes`, {
      where,
      mend: "give activations of shape [sequences, positions, width] or [rows, width]",
    });
  }
  if (shape.includes(0)) throw new FormatError(`${inWords(dataset)} has no rows`, { where, mend: "give a file with data" });
  const axes = shape.length === 3 ? 2 : 1;
  const data = file.rows(name, axes);
  if (!isFloat(data.dtype)) {
    throw new FormatError(`${name} holds ${type}, not f16, bf16, f32 or f64`, { where, mend: "name the activations with --dataset" });
  }
  const dtype: RowDType = data.dtype;
  const sequence = axes === 2 ? (shape[1] as number) : undefined;
  const at = name.lastIndexOf("/") + 1;
  return {
    description: `${where}: ${data.rows.toLocaleString("en-US")} x ${data.width} ${dtype}`,
    paths: [where],
    dIn: data.width,
    rows: data.rows,
    dtype,
    sequence,
    grain: data.grain,
    origin: originOf(file.attributes),
    read: data.read,
    tokens: tokensOf(file, name.slice(0, at) + TOKENS, dataset, axes),
    locate(row) {
      const place = sequence === undefined ? "" : ` (sequence ${Math.floor(row / sequence)}, position ${row % sequence})`;
      return `${where}, row ${row}${place}`;
    },
    close: () => file.close(),
  };
}

function originOf(attributes: ReadonlyMap<string, string | number>): Origin {
  const text = (name: string): string | undefined => {
    const value = attributes.get(name);
    return typeof value === "string" ? value : undefined;
  };
  const start = attributes.get("start_token");
  const all = {
    model: text("model"),
    modelSha256: text("model_sha256"),
    tensor: text("tensor"),
    tokenizer: text("tokenizer"),
    startToken: typeof start === "number" && Number.isInteger(start) ? start : undefined,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** The token ids beside the activations, one a row. */
function tokensOf(file: Hdf5File, name: string, { name: beside, shape }: Hdf5Dataset, axes: 1 | 2): Source["tokens"] {
  const tokens = file.datasets.find((dataset) => dataset.name === name);
  if (tokens === undefined) return undefined;
  const where = file.path;
  const want = shape.slice(0, axes);
  if (tokens.shape.length !== axes || tokens.shape.some((size, i) => size !== want[i])) {
    throw new FormatError(`${inWords(tokens)} must have shape [${want.join(", ")}], as ${beside} has`, { where });
  }
  const ids = file.rows(name, axes);
  const asIntegers = INTEGERS[ids.dtype];
  if (asIntegers === undefined) throw new FormatError(`${inWords(tokens)} must hold integers`, { where });
  return async (first, count) => {
    const bytes = new Uint8Array(count * HDF5_BYTES[ids.dtype]);
    await ids.read(first, count, bytes);
    return toInt32(asIntegers(bytes.buffer), `${where}, ${name}, row`, first);
  };
}

/** Little-endian integers as an array of their own kind. */
const INTEGERS: Readonly<Partial<Record<Hdf5DType, (buffer: ArrayBuffer) => ArrayLike<number | bigint>>>> = {
  i8: (buffer) => new Int8Array(buffer),
  u8: (buffer) => new Uint8Array(buffer),
  i16: (buffer) => new Int16Array(buffer),
  u16: (buffer) => new Uint16Array(buffer),
  i32: (buffer) => new Int32Array(buffer),
  u32: (buffer) => new Uint32Array(buffer),
  i64: (buffer) => new BigInt64Array(buffer),
  u64: (buffer) => new BigUint64Array(buffer),
};

function toInt32(values: ArrayLike<number | bigint>, where: string, first: number): Int32Array {
  if (values instanceof Int32Array) return values;
  const ids = new Int32Array(values.length);
  for (let i = 0; i < ids.length; i++) {
    const value = Number(values[i]);
    ids[i] = value;
    if (ids[i] !== value) throw new FormatError(`token id ${values[i]} is beyond 32 bits`, { where: `${where} ${first + i}` });
  }
  return ids;
}

function inWords({ name, type, shape }: Hdf5Dataset): string {
  return `${name} (${type} [${shape.join(", ")}])`;
}

function listed(datasets: readonly Hdf5Dataset[]): string {
  if (datasets.length === 0) return "no datasets";
  const shown = datasets.slice(0, 10).map(inWords).join(", ");
  return datasets.length > 10 ? `${shown} and ${datasets.length - 10} more` : shown;
}
