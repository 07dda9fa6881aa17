/**
 * Writes what torch.load reads, also with weights_only=True: a dict of tensors, whole numbers and
 * text, as a zip archive of its pickle (protocol 2) and its storages (see torch-read.ts). Storages
 * begin on multiples of 64 bytes, as torch.save has them.
 */

import { BYTES } from "../util/bytes.ts";
import type { TorchDType } from "./torch-tensor.ts";
import { LARGEST, type Write, ZipWriter } from "./zip-write.ts";

/**
 * A tensor to be written; `bytes` is called when its turn comes, so that only one is held at a
 * time.
 */
export interface TorchPart {
  readonly dtype: TorchDType;
  readonly shape: readonly number[];
  /** In elements; default: row-major. They must go over all elements of the storage, each once. */
  readonly strides?: readonly number[];
  /** The storage's elements, little-endian. */
  readonly bytes: () => Promise<Uint8Array>;
}

export interface TorchDict {
  readonly [name: string]: TorchPart | TorchDict | number | string;
}

/**
 * Writes a whole file, in order, through `write`. `name` is the folder within the archive, which
 * readers do not look at. `largest`: for tests.
 */
export async function writeTorch(write: Write, dict: TorchDict, name = "archive", largest = LARGEST): Promise<void> {
  const pickler = new Pickler();
  pickler.dict(dict);
  const archive = new ZipWriter(write, largest);
  const add = (entry: string, data: Uint8Array) => archive.add(entry, data.byteLength, (put) => put(data));
  await add(`${name}/data.pkl`, pickler.end());
  for (const [key, { dtype, shape, bytes }] of pickler.storages.entries()) {
    const data = await bytes();
    const length = shape.reduce((product, size) => product * size, BYTES[dtype]);
    if (data.byteLength !== length) throw new RangeError(`storage ${key} has ${data.byteLength} bytes, not ${length}`);
    await add(`${name}/data/${key}`, data);
  }
  await add(`${name}/version`, Buffer.from("3\n"));
  await archive.end();
}

const STORAGES: Readonly<Record<TorchDType, string>> = {
  f64: "DoubleStorage",
  f32: "FloatStorage",
  f16: "HalfStorage",
  bf16: "BFloat16Storage",
  i64: "LongStorage",
  i32: "IntStorage",
  i16: "ShortStorage",
  i8: "CharStorage",
  u8: "ByteStorage",
  bool: "BoolStorage",
};

class Pickler {
  readonly #parts: Uint8Array[] = [Uint8Array.of(0x80, 2)]; // PROTO 2
  readonly storages: TorchPart[] = [];

  end(): Uint8Array {
    this.#code(".");
    return Buffer.concat(this.#parts);
  }

  dict(dict: TorchDict): void {
    this.#code("}(");
    for (const [name, value] of Object.entries(dict)) {
      this.#text(name);
      if (typeof value === "number") this.#number(value);
      else if (typeof value === "string") this.#text(value);
      else if (isPart(value)) this.#tensor(value);
      else this.dict(value);
    }
    this.#code("u");
  }

  #tensor(part: TorchPart): void {
    const { dtype, shape, strides = rowMajor(shape) } = part;
    this.#code("ctorch._utils\n_rebuild_tensor_v2\n((");
    this.#text("storage");
    this.#code(`ctorch\n${STORAGES[dtype]}\n`);
    this.#text(String(this.storages.length));
    this.#text("cpu");
    this.#number(shape.reduce((product, size) => product * size, 1));
    this.#code("tQ"); // TUPLE, BINPERSID
    this.#number(0);
    this.#numbers(shape);
    this.#numbers(strides);
    this.#parts.push(Uint8Array.of(0x89)); // NEWFALSE
    this.#code("ccollections\nOrderedDict\n)RtR");
    this.storages.push(part);
  }

  #numbers(values: readonly number[]): void {
    this.#code("(");
    for (const value of values) this.#number(value);
    this.#code("t");
  }

  /**
   * A whole number: of 4 bytes as BININT, of more as LONG1. torch.load(weights_only=True) of
   * PyTorch 1.13 reads no other.
   */
  #number(value: number): void {
    if (!Number.isSafeInteger(value)) throw new RangeError(`${value} is no whole number`);
    const bytes = Buffer.alloc(10);
    if (Math.abs(value) < 2 ** 31) {
      bytes.write("J", "latin1");
      bytes.writeInt32LE(value, 1);
      this.#parts.push(bytes.subarray(0, 5));
    } else {
      bytes.set([0x8a, 8]);
      bytes.writeBigInt64LE(BigInt(value), 2);
      this.#parts.push(bytes);
    }
  }

  #text(text: string): void {
    const bytes = Buffer.from(text);
    const head = Buffer.alloc(5);
    head.write("X", "latin1");
    head.writeUInt32LE(bytes.byteLength, 1);
    this.#parts.push(head, bytes);
  }

  #code(text: string): void {
    this.#parts.push(Buffer.from(text, "latin1"));
  }
}

function isPart(value: TorchPart | TorchDict): value is TorchPart {
  return typeof value.bytes === "function";
}

function rowMajor(shape: readonly number[]): number[] {
  let step = 1;
  return shape
    .toReversed()
    .map((size) => {
      step *= size;
      return step / size;
    })
    .toReversed();
}
