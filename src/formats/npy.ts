/**
 * NumPy's .npy: the magic, a version, the length of a header, the header (a Python literal of a
 * dict with `descr`, `fortran_order` and `shape`), then the elements
 * (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html). Nothing is evaluated
 * and no pickle is ever read.
 */

import type { FileHandle } from "node:fs/promises";
import { BYTES, readFully } from "../util/bytes.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError } from "../util/errors.ts";
import { openToRead } from "./open-file.ts";

/**
 * `u16`, `i16` and `raw16` (2 bytes without a type) are read for the bits of bfloat16 that they may
 * be.
 */
export type NpyDType = "f16" | "bf16" | "f32" | "f64" | "u16" | "i16" | "raw16";

export interface Npy {
  readonly path: string;
  readonly shape: readonly number[];
  /** In words: "f32", "big-endian f32", "objects". */
  readonly type: string;
  /** Undefined where the elements are neither little-endian floats nor 2 bytes long. */
  readonly dtype: NpyDType | undefined;
  /** Why the data cannot be used as activations, with the mend; undefined when it can. */
  readonly problem: { readonly what: string; readonly mend: string } | undefined;
  /** Byte of the file where the elements begin. */
  readonly position: number;
  readonly handle: FileHandle;
}

const MAGIC = "\x93NUMPY";
/** NumPy itself refuses headers of more than 10,000 bytes unless told to trust them. */
const MAX_HEADER = 64 * 1024;
const MAX_AXES = 64;
/** Magic, version, length and the longest header. */
export const NPY_START = 12 + MAX_HEADER;

/**
 * Opens a file and checks its header against its size; the caller closes `handle`. Throws
 * FormatError, naming file and byte, when it is damaged.
 */
export async function openNpy(path: string): Promise<Npy> {
  const { handle, size } = await openToRead(path);
  return closedOnFailure(handle, async () => {
    const first = new Uint8Array(Math.min(NPY_START, size));
    await readFully(handle, first, 0, path);
    const { columnMajor, ...about } = npyHeader(first, size, path);
    const problem =
      about.problem ??
      (columnMajor
        ? { what: "its elements are stored column by column (Fortran order)", mend: "save np.ascontiguousarray(array)" }
        : undefined);
    return { path, ...about, problem, handle };
  });
}

/** What the start of a file says of its array. */
export interface NpyHeader extends Pick<Npy, "shape" | "type" | "dtype" | "problem" | "position"> {
  /** Elements of a column are next to each other (Fortran order). */
  readonly columnMajor: boolean;
}

/**
 * The header of a file of `size` bytes, checked against that size; undefined: the size is not
 * known. `first`: its first NPY_START bytes, or all where it has fewer. Throws FormatError, naming
 * `path` and byte.
 */
export function npyHeader(first: Uint8Array, size: number | undefined, path: string): NpyHeader {
  const { text, position } = headerText(first, size ?? first.byteLength, path);
  const { descr, fortran, shape } = parseHeader(text, `${path}, the header`);
  const found = typeOf(descr);
  if (found.dtype !== undefined && size !== undefined) checkSize(shape, found.dtype, size - position, path);
  const columnMajor = fortran && shape.filter((length) => length > 1).length > 1;
  return { shape, ...found, columnMajor, position };
}

function headerText(first: Uint8Array, size: number, path: string): { text: string; position: number } {
  const refuse = (what: string): never => {
    throw new FormatError(what, { where: path, mend: "save it again with np.save" });
  };
  if (size < 10) refuse(`has ${size} bytes, too few for an .npy file`);
  const prefix = Buffer.from(first.buffer, first.byteOffset, first.byteLength);
  if (prefix.toString("latin1", 0, 6) !== MAGIC) refuse("byte 0: is no .npy file");
  const [major = 0, minor = 0] = prefix.subarray(6, 8);
  if (major < 1 || major > 3 || minor !== 0) refuse(`byte 6: .npy version ${major}.${minor} is not known`);
  const start = major === 1 ? 10 : 12;
  if (size < start) refuse(`has ${size} bytes, too few for an .npy file`);
  const length = major === 1 ? prefix.readUInt16LE(8) : prefix.readUInt32LE(8);
  if (length > MAX_HEADER) refuse(`byte 8: states a header of ${length} bytes, more than the ${MAX_HEADER} allowed`);
  const position = start + length;
  if (position > size) refuse(`byte 8: states a header of ${length} bytes, but the file ends at byte ${size}`);
  return { text: prefix.toString(major === 3 ? "utf8" : "latin1", start, position), position };
}

function checkSize(shape: readonly number[], dtype: NpyDType, there: number, path: string): void {
  const needed = shape.reduce((product, length) => product * length, BYTES[dtype]);
  if (needed === there) return;
  throw new FormatError(`${dtype} [${shape.join(", ")}] takes ${needed} bytes, but ${there} follow the header`, {
    where: path,
    mend: there < needed ? "the file is cut off: save it again" : "save one array a file",
  });
}

interface Header {
  /** A type string such as "<f4"; undefined: fields (a list). */
  readonly descr: string | undefined;
  readonly fortran: boolean;
  readonly shape: readonly number[];
}

/**
 * The dict {'descr': str, 'fortran_order': bool, 'shape': (int, ...)}, in any order, each name
 * once, and nothing else.
 */
function parseHeader(text: string, where: string): Header {
  const scan = new Scanner(text, where);
  let descr: { readonly type: string | undefined } | undefined;
  let fortran: boolean | undefined;
  let shape: readonly number[] | undefined;
  scan.take("{");
  while (!scan.accept("}")) {
    const name = scan.string();
    scan.take(":");
    if (name === "descr" && descr === undefined) descr = { type: scan.peek("[") ? undefined : scan.string() };
    else if (name === "fortran_order" && fortran === undefined) fortran = scan.boolean();
    else if (name === "shape" && shape === undefined) shape = scan.tuple();
    else throw scan.refuse(`the name '${name}' is not expected`);
    // What a list holds is of no use: only plain types are read.
    if (name === "descr" && descr?.type === undefined) return { descr: undefined, fortran: false, shape: [] };
    if (!scan.accept(",") && !scan.peek("}")) throw scan.refuse("a comma or } is missing");
  }
  scan.end();
  if (descr === undefined || fortran === undefined || shape === undefined)
    throw scan.refuse("descr, fortran_order or shape is missing");
  return { descr: descr.type, fortran, shape };
}

/** Reads the few Python literals that a header may hold, from left to right. */
class Scanner {
  readonly #text: string;
  readonly #where: string;
  #at = 0;

  constructor(text: string, where: string) {
    this.#text = text;
    this.#where = where;
  }

  refuse(what: string): FormatError {
    return new FormatError(`character ${this.#at}: ${what}`, {
      where: this.#where,
      mend: "save it again with np.save",
    });
  }

  /** The match of a sticky expression after white space. */
  #match(pattern: RegExp): string | undefined {
    const space = /[ \t\n\r]*/y;
    space.lastIndex = this.#at;
    space.test(this.#text);
    pattern.lastIndex = space.lastIndex;
    const found = pattern.exec(this.#text);
    if (found === null) return undefined;
    this.#at = pattern.lastIndex;
    return found[1] ?? found[0];
  }

  peek(char: string): boolean {
    const before = this.#at;
    const found = this.accept(char);
    this.#at = before;
    return found;
  }

  accept(char: string): boolean {
    return this.#match(new RegExp(`\\${char}`, "y")) !== undefined;
  }

  take(char: string): void {
    if (!this.accept(char)) throw this.refuse(`${char} is missing`);
  }

  string(): string {
    const found = this.#match(/'([^'\\\n]{0,100})'/y) ?? this.#match(/"([^"\\\n]{0,100})"/y);
    if (found === undefined) throw this.refuse("a string is missing");
    return found;
  }

  boolean(): boolean {
    const found = this.#match(/True|False/y);
    if (found === undefined) throw this.refuse("True or False is missing");
    return found === "True";
  }

  /** (), (3,) or (3, 4); a number may end with the L of Python 2. */
  tuple(): number[] {
    const lengths: number[] = [];
    this.take("(");
    while (!this.accept(")")) {
      const digits = this.#match(/(\d{1,16})L?/y);
      const length = Number(digits);
      if (digits === undefined || !Number.isSafeInteger(length))
        throw this.refuse("a length is missing or beyond 2^53");
      lengths.push(length);
      if (lengths.length > MAX_AXES) throw this.refuse(`more than ${MAX_AXES} axes`);
      const comma = this.accept(",");
      if (!comma && (lengths.length === 1 || !this.peek(")"))) throw this.refuse("a comma or ) is missing");
    }
    if (lengths.reduce((product, length) => product * length, 8) > Number.MAX_SAFE_INTEGER)
      throw this.refuse("the shape is too large");
    return lengths;
  }

  end(): void {
    this.#match(/[ \t\n\r]*/y);
    if (this.#at !== this.#text.length) throw this.refuse("something follows the dict");
  }
}

const FLOATS: Readonly<Record<string, NpyDType>> = { f2: "f16", f4: "f32", f8: "f64" };
const BITS: Readonly<Record<string, NpyDType>> = { "<u2": "u16", "<i2": "i16" };

function typeOf(descr: string | undefined): Pick<Npy, "type" | "dtype" | "problem"> {
  if (descr === undefined)
    return unusable("fields", "its elements have several fields", "save one field as a plain array");
  const [order, kind] = [descr[0], descr.slice(1)];
  if (kind === "O")
    return unusable(
      "objects",
      "it holds Python objects, which only unpickling could read",
      "save an array of plain floats",
    );
  // A plain void has no byte order, '|V2'; NumPy writes '<V2' for a 2-byte type that was registered
  // with it, and ml_dtypes' bfloat16 is the only one.
  if (descr === "<V2") return { type: "bf16", dtype: "bf16", problem: undefined };
  // As when bfloat16 was loaded and saved again without ml_dtypes.
  if (descr === "|V2") return { type: "2 bytes without a type", dtype: "raw16", problem: undefined };
  const bits = BITS[descr];
  if (bits !== undefined) return { type: `'${descr}'`, dtype: bits, problem: undefined };
  const float = FLOATS[kind];
  if (float !== undefined && order === "<") return { type: float, dtype: float, problem: undefined };
  if (float !== undefined && order === ">") {
    return unusable(`big-endian ${float}`, `its elements are big-endian ${float}`, `save array.astype("<${kind}")`);
  }
  return unusable(
    `'${descr}'`,
    `its elements are of type '${descr}', not f16, bf16, f32 or f64`,
    "save an array of floats",
  );
}

function unusable(type: string, what: string, mend: string): Pick<Npy, "type" | "dtype" | "problem"> {
  return { type, dtype: undefined, problem: { what, mend } };
}

/** The types that are written; `bytes3`: three bytes of text. */
const WRITTEN = { f32: "<f4", f64: "<f8", i32: "<i4", i64: "<i8", bytes3: "|S3" } as const;
export type NpyWrittenDType = keyof typeof WRITTEN;

/** What comes before the elements of a row-major array. A multiple of 64 bytes. */
export function npyHead(dtype: NpyWrittenDType, shape: readonly number[]): Buffer {
  const lengths = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const dict = `{'descr': '${WRITTEN[dtype]}', 'fortran_order': False, 'shape': (${lengths}), }`;
  const prefix = MAGIC.length + 4;
  const bytes = Math.ceil((prefix + dict.length + 1) / 64) * 64;
  const head = Buffer.alloc(bytes, " ");
  head.write(MAGIC, "latin1");
  head.set([1, 0], MAGIC.length);
  head.writeUInt16LE(bytes - prefix, MAGIC.length + 2);
  head.write(`${dict}`, prefix, "latin1");
  head.write("\n", bytes - 1);
  return head;
}
