/**
 * Memory in which a look for exponents of ones is four times as fast as a loop in JavaScript:
 * WebAssembly's, 16 bytes an instruction. What is read from disk is looked at before it is trained
 * on, and on few cores that look is what reading costs. The module is so small that it is put
 * together here, instruction by instruction (WebAssembly core specification 2.0, 5: binary format).
 */

/**
 * The OR of `(word & mask) + lowest` over all words of 4 bytes of the memory's bytes [begin, end).
 * `end - begin` is a multiple of 64, and not 0.
 */
export type Screen = (begin: number, end: number, mask: number, lowest: number) => number;

const screens = new WeakMap<ArrayBufferLike, Screen>();

/** The screen of memory that came from `screenedMemory`. */
export function screenOf(buffer: ArrayBufferLike): Screen | undefined {
  return screens.get(buffer);
}

/** The part of WebAssembly's interface that is used; the types of Node declare no values of it. */
const { WebAssembly: wasm } = globalThis as unknown as {
  readonly WebAssembly: {
    readonly Memory: new (options: { readonly initial: number }) => { readonly buffer: ArrayBuffer };
    readonly Module: new (bytes: Uint8Array) => object;
    readonly Instance: new (module: object, imports: object) => { readonly exports: { readonly f: Screen } };
  };
};

const PAGE = 65_536;
/** WebAssembly addresses 4 GiB; what is larger than this is not worth the care. */
const MOST = 2 ** 30;

/** Zeroed memory of at least so many bytes; plain memory where there can be no screen. */
export function screenedMemory(bytes: number): ArrayBuffer {
  if (bytes > MOST) return new ArrayBuffer(bytes);
  try {
    const memory = new wasm.Memory({ initial: Math.ceil(bytes / PAGE) });
    const { exports } = new wasm.Instance(screenModule(), { m: { m: memory } });
    screens.set(memory.buffer, exports.f);
    return memory.buffer;
  } catch {
    // A processor without these instructions, or no room for the address space that V8 sets aside.
    return new ArrayBuffer(bytes);
  }
}

let compiled: object | undefined;

function screenModule(): object {
  compiled ??= new wasm.Module(Uint8Array.from(assemble()));
  return compiled;
}

const I32 = 0x7f;
const V128 = 0x7b;
const GET = 0x20;
const SET = 0x21;
const [BEGIN, END, MASK, LOWEST, MASKS, LOWESTS, SUMS] = [0, 1, 2, 3, 4, 5, 6];

/** LEB128. */
function u32(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...u32(value >>> 7)];
}

function section(id: number, bytes: readonly number[]): number[] {
  return [id, ...u32(bytes.length), ...bytes];
}

function simd(opcode: number, ...immediates: readonly number[]): number[] {
  return [0xfd, ...u32(opcode), ...immediates];
}

function assemble(): number[] {
  const splat = simd(0x11);
  const and = simd(0x4e);
  const or = simd(0x50);
  const add = simd(0xae);
  const lane = (i: number) => [GET, SUMS, ...simd(0x1b, i)];
  /** SUMS |= (16 bytes at BEGIN + offset & MASKS) + LOWESTS */
  const look = (offset: number) => [
    ...[GET, SUMS, GET, BEGIN],
    ...simd(0x00, 0, offset),
    ...[GET, MASKS, ...and, GET, LOWESTS, ...add, ...or, SET, SUMS],
  ];
  const body = [
    ...[1, 3, V128], // one group of locals: MASKS, LOWESTS, SUMS
    ...[GET, MASK, ...splat, SET, MASKS],
    ...[GET, LOWEST, ...splat, SET, LOWESTS],
    ...[0x03, 0x40], // loop
    ...[0, 16, 32, 48].flatMap(look),
    ...[GET, BEGIN, 0x41, 0xc0, 0x00, 0x6a, SET, BEGIN], // BEGIN += 64
    ...[GET, BEGIN, GET, END, 0x49, 0x0d, 0, 0x0b], // again while BEGIN < END
    ...[...lane(0), ...lane(1), 0x72, ...lane(2), 0x72, ...lane(3), 0x72, 0x0b],
  ];
  return [
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 4, I32, I32, I32, I32, 1, I32]), // (i32, i32, i32, i32) -> i32
    ...section(2, [1, 1, 0x6d, 1, 0x6d, 2, 0, 0]), // memory m.m
    ...section(3, [1, 0]),
    ...section(7, [1, 1, 0x66, 0, 0]), // f
    ...section(10, [1, ...u32(body.length), ...body]),
  ];
}
