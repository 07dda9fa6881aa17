/**
 * The part of Python's pickles that torch.save needs for weights (CPython, Lib/pickletools.py):
 * numbers, text, lists, tuples, dicts, and tensors over storages. Nothing is run: of the functions
 * and classes that a pickle may name only those in GLOBALS mean anything here; all else is refused.
 */

import { FormatError } from "../util/errors.ts";
import { type TorchDType, TorchStorage, TorchTensor } from "./torch-tensor.ts";

/** Something that the pickle names and that is not followed, such as torch.float32. */
export class TorchName {
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }
}

export type TorchKey = string | number | bigint | boolean | null;
/** A tuple, where a list is a plain array. */
export class TorchTuple extends Array<TorchValue> {}

/**
 * Lists and tuples are both arrays. They may be shared, and a hostile file can make them hold
 * themselves: do not walk them without a limit.
 */
export type TorchValue =
  | TorchKey
  | TorchTensor
  | TorchStorage
  | TorchName
  | Uint8Array
  | TorchValue[]
  | Map<TorchKey, TorchValue>;

/**
 * Far more than weights need, and few enough that a hostile file cannot fill the memory with empty
 * lists.
 */
const MOST_INSTRUCTIONS = 1_000_000;

/**
 * More elements than the storage has are a view that repeats some (a stride of 0): up to this many
 * are no danger.
 */
const MOST_REPEATED = 2 ** 22;

const STORAGES: Readonly<Record<string, TorchDType | undefined>> = {
  "torch.DoubleStorage": "f64",
  "torch.FloatStorage": "f32",
  "torch.HalfStorage": "f16",
  "torch.BFloat16Storage": "bf16",
  "torch.LongStorage": "i64",
  "torch.IntStorage": "i32",
  "torch.ShortStorage": "i16",
  "torch.CharStorage": "i8",
  "torch.ByteStorage": "u8",
  "torch.BoolStorage": "bool",
};

const REBUILD = "torch._utils._rebuild_tensor_v2";
const PARAMETER = "torch._utils._rebuild_parameter";
const DICT = "collections.OrderedDict";

const isKnown = (name: string): boolean =>
  [REBUILD, PARAMETER, DICT].includes(name) ||
  STORAGES[name] !== undefined ||
  /^torch\.(u?int|float|bfloat|bool|half|double|long)\d*$/.test(name);

/**
 * The object of a pickle. `where` names the file in errors, and `base` is the place of the first
 * byte in it.
 */
export function parsePickle(bytes: Uint8Array, where: string, base = 0): TorchValue {
  return new Machine(bytes, where, base).run();
}

const MARK = Symbol("mark");
type Slot = TorchValue | typeof MARK;

class Machine {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #where: string;
  readonly #base: number;
  readonly #stack: Slot[] = [];
  readonly #memo = new Map<number, TorchValue>();
  #at = 0;
  /** Where the instruction that is carried out starts. */
  #start = 0;

  constructor(bytes: Uint8Array, where: string, base: number) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#where = where;
    this.#base = base;
  }

  run(): TorchValue {
    for (let count = 0; ; count++) {
      this.#start = this.#at;
      if (count === MOST_INSTRUCTIONS)
        this.refuse(`more than ${MOST_INSTRUCTIONS} instructions are too many for weights`);
      const code = this.raw(1)[0]!;
      if (code === STOP) return this.#pop();
      const instruction = INSTRUCTIONS.get(code);
      if (instruction === undefined) {
        const shown = code > 0x20 && code < 0x7f ? ` ("${String.fromCharCode(code)}")` : "";
        this.refuse(`instruction 0x${code.toString(16)}${shown} has no place in weights`);
      }
      instruction(this);
    }
  }

  refuse(what: string, mend?: string): never {
    throw new FormatError(`byte ${this.#base + this.#start}: ${what}`, {
      where: this.#where,
      ...(mend === undefined ? {} : { mend }),
    });
  }

  // ---- what instructions are followed by ----

  #take(count: number): number {
    if (count > this.#bytes.byteLength - this.#at)
      this.refuse(`the pickle ends ${count - (this.#bytes.byteLength - this.#at)} bytes too early`);
    const at = this.#at;
    this.#at += count;
    return at;
  }

  unsigned(width: 1 | 2 | 4 | 8): number {
    const at = this.#take(width);
    if (width === 1) return this.#view.getUint8(at);
    if (width === 2) return this.#view.getUint16(at, true);
    return width === 4 ? this.#view.getUint32(at, true) : Number(this.#view.getBigUint64(at, true));
  }

  signed(): number {
    return this.#view.getInt32(this.#take(4), true);
  }

  float(): number {
    return this.#view.getFloat64(this.#take(8), false);
  }

  /** A whole number of `count` bytes, little-endian, two's complement. */
  long(count: number): number | bigint {
    if (count > 8) return this.refuse(`a whole number of ${count} bytes is too large`);
    const at = this.#take(count);
    let value = 0n;
    for (let i = count - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#bytes[at + i]!);
    const signed = BigInt.asIntN(8 * count, value);
    return signed >= BigInt(Number.MIN_SAFE_INTEGER) && signed <= BigInt(Number.MAX_SAFE_INTEGER)
      ? Number(signed)
      : signed;
  }

  raw(count: number): Uint8Array {
    const at = this.#take(count);
    return this.#bytes.subarray(at, at + count);
  }

  text(count: number): string {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.raw(count));
    } catch (thrown) {
      if (thrown instanceof FormatError) throw thrown;
      return this.refuse("text that is not UTF-8");
    }
  }

  line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) return this.refuse("a name without an end");
    const text = this.text(end - this.#at);
    this.#at++;
    return text;
  }

  // ---- the stack ----

  push(value: Slot): void {
    this.#stack.push(value);
  }

  pop(): TorchValue {
    return this.#pop();
  }

  #pop(): TorchValue {
    const value = this.#stack.pop();
    if (value === undefined || value === MARK) return this.refuse("takes something that is not there");
    return value;
  }

  top(): TorchValue {
    const value = this.#stack.at(-1);
    if (value === undefined || value === MARK) return this.refuse("takes something that is not there");
    return value;
  }

  /** All that was pushed since the last mark, which goes too. */
  popToMark(): TorchValue[] {
    const mark = this.#stack.lastIndexOf(MARK);
    if (mark < 0) return this.refuse("takes all since a mark, but there is none");
    return this.#stack.splice(mark).slice(1) as TorchValue[];
  }

  store(index: number): void {
    this.#memo.set(index, this.top());
  }

  memoize(): void {
    this.store(this.#memo.size);
  }

  fetch(index: number): void {
    const value = this.#memo.get(index);
    if (value === undefined) this.refuse(`refers to object ${index}, which there is not`);
    this.push(value);
  }

  // ---- objects ----

  list(): TorchValue[] {
    const list = this.top();
    return Array.isArray(list) ? list : this.refuse("appends to something that is no list");
  }

  dict(): Map<TorchKey, TorchValue> {
    const dict = this.top();
    return dict instanceof Map ? dict : this.refuse("sets an item of something that is no dict");
  }

  set(dict: Map<TorchKey, TorchValue>, key: TorchValue, value: TorchValue): void {
    if (typeof key === "object" && key !== null) this.refuse("a dict whose key is neither text nor a number");
    dict.set(key, value);
  }

  global(module: string, name: string): void {
    const full = `${module === "__builtin__" ? "builtins" : module}.${name}`;
    if (!isKnown(full)) {
      this.refuse(
        `needs ${full.slice(0, 80)}, which is not run: only tensors, numbers, text, lists and dicts are read`,
        "save the state dict alone: torch.save(model.state_dict(), path)",
      );
    }
    this.push(new TorchName(full));
  }

  /** A tuple ("storage", type, key, device, elements). */
  persistent(): void {
    const id = this.#pop();
    if (!Array.isArray(id) || id.length !== 5 || id[0] !== "storage")
      this.refuse("an external object that is no storage");
    const [, type, key, , elements] = id;
    const dtype = type instanceof TorchName ? STORAGES[type.name] : undefined;
    if (dtype === undefined) this.refuse("a storage of a type that is not read");
    if (typeof key !== "string" || !isCount(elements)) this.refuse("a storage without key or size");
    this.push(new TorchStorage(key, dtype, elements));
  }

  reduce(): void {
    const given = this.#pop();
    const callable = this.#pop();
    if (!Array.isArray(given) || !(callable instanceof TorchName)) this.refuse("calls something that is no function");
    if (callable.name === REBUILD) this.push(this.#tensor(given));
    else if (callable.name === PARAMETER && given[0] instanceof TorchTensor) this.push(given[0]);
    else if (callable.name === DICT) this.push(this.#ordered(given));
    else this.refuse(`calls ${callable.name}`);
  }

  /** Attributes of an OrderedDict, such as the versions of modules, do not count. */
  build(): void {
    this.#pop();
    if (!(this.top() instanceof Map)) this.refuse("sets attributes of something that is no dict");
  }

  #ordered([pairs]: readonly TorchValue[]): Map<TorchKey, TorchValue> {
    const dict = new Map<TorchKey, TorchValue>();
    if (pairs === undefined) return dict;
    if (!Array.isArray(pairs)) return this.refuse("an OrderedDict of something that is no list");
    for (const pair of pairs) {
      if (!Array.isArray(pair) || pair.length !== 2)
        return this.refuse("an OrderedDict of something that is no list of pairs");
      this.set(dict, pair[0]!, pair[1]!);
    }
    return dict;
  }

  #tensor(given: readonly TorchValue[]): TorchTensor {
    const [storage, offset, shape, strides] = given;
    if (!(storage instanceof TorchStorage)) return this.refuse("a tensor without a storage");
    if (!isCount(offset) || !isCounts(shape) || !isCounts(strides) || shape.length !== strides.length) {
      return this.refuse("a tensor whose offset, sizes and strides make no sense");
    }
    const tensor = new TorchTensor(storage, offset, [...shape], [...strides]);
    const { elements } = tensor;
    if (elements === 0) return tensor;
    const last = shape.reduce((sum, size, axis) => sum + (size - 1) * strides[axis]!, offset);
    if (!(last < storage.elements)) {
      return this.refuse(
        `a tensor [${shape.join(", ")}] whose last element is number ${last} of a storage of ${storage.elements}`,
      );
    }
    if (elements > Math.max(storage.elements, MOST_REPEATED)) {
      return this.refuse(
        `a tensor [${shape.join(", ")}] that repeats a storage of ${storage.elements}`,
        "save it contiguous",
      );
    }
    return tensor;
  }
}

function isCount(value: TorchValue | undefined): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isCounts(value: TorchValue | undefined): value is number[] {
  return Array.isArray(value) && value.length <= 16 && value.every(isCount);
}

const STOP = 0x2e;

/** By opcode, in the order of pickletools.py. */
const INSTRUCTIONS = new Map<number, (m: Machine) => void>([
  [0x4a, (m) => m.push(m.signed())], // BININT
  [0x4b, (m) => m.push(m.unsigned(1))], // BININT1
  [0x4d, (m) => m.push(m.unsigned(2))], // BININT2
  [0x8a, (m) => m.push(m.long(m.unsigned(1)))], // LONG1
  [0x54, (m) => m.push(m.text(m.unsigned(4)))], // BINSTRING
  [0x55, (m) => m.push(m.text(m.unsigned(1)))], // SHORT_BINSTRING
  [0x42, (m) => m.push(m.raw(m.unsigned(4)))], // BINBYTES
  [0x43, (m) => m.push(m.raw(m.unsigned(1)))], // SHORT_BINBYTES
  [0x4e, (m) => m.push(null)], // NONE
  [0x88, (m) => m.push(true)], // NEWTRUE
  [0x89, (m) => m.push(false)], // NEWFALSE
  [0x8c, (m) => m.push(m.text(m.unsigned(1)))], // SHORT_BINUNICODE
  [0x58, (m) => m.push(m.text(m.unsigned(4)))], // BINUNICODE
  [0x8d, (m) => m.push(m.text(m.unsigned(8)))], // BINUNICODE8
  [0x47, (m) => m.push(m.float())], // BINFLOAT
  [0x5d, (m) => m.push([])], // EMPTY_LIST
  [
    0x61, // APPEND
    (m) => {
      const value = m.pop();
      m.list().push(value);
    },
  ],
  [
    0x65, // APPENDS
    (m) => {
      const values = m.popToMark();
      const list = m.list();
      for (const value of values) list.push(value);
    },
  ],
  [0x29, (m) => m.push(new TorchTuple())], // EMPTY_TUPLE
  [0x74, (m) => m.push(TorchTuple.from(m.popToMark()))], // TUPLE
  [0x85, (m) => m.push(TorchTuple.from([m.pop()]))], // TUPLE1
  [0x86, (m) => m.push(TorchTuple.from([m.pop(), m.pop()].reverse()))], // TUPLE2
  [0x87, (m) => m.push(TorchTuple.from([m.pop(), m.pop(), m.pop()].reverse()))], // TUPLE3
  [0x7d, (m) => m.push(new Map())], // EMPTY_DICT
  [
    0x73, // SETITEM
    (m) => {
      const value = m.pop();
      const key = m.pop();
      m.set(m.dict(), key, value);
    },
  ],
  [
    0x75, // SETITEMS
    (m) => {
      const items = m.popToMark();
      const dict = m.dict();
      if (items.length % 2 !== 0) m.refuse("a key without a value");
      for (let i = 0; i < items.length; i += 2) m.set(dict, items[i]!, items[i + 1]!);
    },
  ],
  [0x30, (m) => void m.pop()], // POP
  [0x31, (m) => void m.popToMark()], // POP_MARK
  [0x28, (m) => m.push(MARK)], // MARK
  [0x68, (m) => m.fetch(m.unsigned(1))], // BINGET
  [0x6a, (m) => m.fetch(m.unsigned(4))], // LONG_BINGET
  [0x71, (m) => m.store(m.unsigned(1))], // BINPUT
  [0x72, (m) => m.store(m.unsigned(4))], // LONG_BINPUT
  [0x94, (m) => m.memoize()], // MEMOIZE
  [0x63, (m) => m.global(m.line(), m.line())], // GLOBAL
  [
    0x93, // STACK_GLOBAL
    (m) => {
      const name = m.pop();
      const module = m.pop();
      if (typeof name !== "string" || typeof module !== "string") m.refuse("a name that is no text");
      else m.global(module, name);
    },
  ],
  [0x52, (m) => m.reduce()], // REDUCE
  [0x62, (m) => m.build()], // BUILD
  [
    0x80, // PROTO
    (m) => {
      const version = m.unsigned(1);
      if (version < 2 || version > 5) m.refuse(`pickle protocol ${version} is not read`);
    },
  ],
  [0x95, (m) => void m.unsigned(8)], // FRAME
  [0x51, (m) => m.persistent()], // BINPERSID
]);
