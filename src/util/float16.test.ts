import { describe, expect, it } from "vitest";
import { decodeBfloat16, decodeFloat16, encodeBfloat16, encodeFloat16, firstNonFinite } from "./float16.ts";
import { screenedMemory, screenOf } from "./screen.ts";

const all = Uint16Array.from({ length: 0x10000 }, (_, bits) => bits);

/**
 * Round to nearest, ties to even, on a grid given by the significant bits and the least exponent;
 * obvious, in float64 arithmetic.
 */
function rounded(value: number, significant: number, leastExponent: number): number {
  if (value === 0 || !Number.isFinite(value)) return value;
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(value))), leastExponent);
  const step = 2 ** (exponent - significant + 1);
  const scaled = Math.abs(value) / step;
  const below = Math.floor(scaled);
  const up = scaled - below > 0.5 || (scaled - below === 0.5 && below % 2 !== 0);
  return Math.sign(value) * (up ? below + 1 : below) * step;
}

/**
 * f32 values over every exponent, and the exact ties between neighbours with what is one ulp beside
 * them.
 */
function samples(decode: (bits: Uint16Array) => Float32Array): Float32Array {
  const out: number[] = [];
  let seed = 1;
  const words = new Uint32Array(1);
  const asFloat = new Float32Array(words.buffer);
  for (let i = 0; i < 60_000; i++) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    words[0] = seed;
    out.push(asFloat[0] as number);
    words[0] = ((103 + (seed % 45)) << 23) | (seed & 0x807f_ffff & ~0x7f80_0000);
    out.push(asFloat[0] as number);
  }
  const values = decode(all);
  for (let bits = 0; bits < 0x7b00; bits += 7) {
    asFloat[0] = ((values[bits] as number) + (values[bits + 1] as number)) / 2;
    const tie = words[0] as number;
    for (const word of [tie - 1, tie, tie + 1]) {
      words[0] = word;
      out.push(asFloat[0] as number);
    }
  }
  return Float32Array.from(out);
}

describe("float16", () => {
  it("has the values of IEEE 754", () => {
    const known: [number, number][] = [
      [0x3c00, 1],
      [0xc000, -2],
      [0x7bff, 65504],
      [0x0001, 2 ** -24],
      [0x03ff, 1023 * 2 ** -24],
      [0x0400, 2 ** -14],
      [0x3555, 0.333251953125],
      [0x7c00, Infinity],
      [0xfc00, -Infinity],
    ];
    for (const [bits, value] of known) expect(decodeFloat16(Uint16Array.of(bits))[0]).toBe(value);
    expect(decodeFloat16(Uint16Array.of(0x7c01, 0xfe00))).toEqual(Float32Array.of(NaN, NaN));
    expect(Object.is(decodeFloat16(Uint16Array.of(0x8000))[0], -0)).toBe(true);
  });

  it.each([
    ["f16", decodeFloat16, encodeFloat16, 11, -14, 65520],
    ["bf16", decodeBfloat16, encodeBfloat16, 8, -126, 2 ** 128 - 2 ** 119],
  ] as const)("narrows to %s as arithmetic says, and every pattern comes back", (_name, decode, encode, significant, least, limit) => {
    const back = new Uint16Array(all.length);
    encode(decode(all), back);
    for (const bits of all) {
      const isNaN_ = Number.isNaN(decode(Uint16Array.of(bits))[0]);
      if (isNaN_) expect(decode(Uint16Array.of(back[bits] as number))[0]).toBeNaN();
      else if (back[bits] !== bits) expect.fail(`pattern ${bits} came back as ${back[bits]}`);
    }
    const values = samples(decode);
    const narrow = new Uint16Array(values.length);
    const overflow = encode(values, narrow);
    const got = decode(narrow);
    expect(overflow).toBe(values.findIndex((v) => Number.isFinite(v) && Math.abs(v) >= limit));
    values.forEach((value, i) => {
      const want = Math.abs(value) >= limit ? Math.sign(value) * Infinity : rounded(value, significant, least);
      if (!Object.is(got[i], want)) expect.fail(`${value} became ${got[i]}, not ${want}`);
    });
  });

  it("names the first finite value that overflows, and no infinity", () => {
    const bits = new Uint16Array(4);
    expect(encodeFloat16(Float32Array.of(Infinity, NaN, 65519.99, -65520), bits)).toBe(3);
    expect(bits).toEqual(Uint16Array.of(0x7c00, 0x7e00, 0x7bff, 0xfc00));
    expect(encodeFloat16(Float32Array.of(1, -65504), bits)).toBe(-1);
    expect(encodeBfloat16(Float32Array.of(Infinity, 3.4e38), bits)).toBe(1);
    expect(() => encodeFloat16(new Float32Array(5), bits)).toThrow(RangeError);
  });
});

describe("firstNonFinite", () => {
  const cases = [
    ["f16", Uint16Array.of(0x7c00, 0x7bff, 0x0001, 0xfe01, 0x3c00)],
    ["bf16", Uint16Array.of(0x7f80, 0x7f7f, 0x7c00, 0xffc0, 0x3f80)],
    ["f32", Float32Array.of(Infinity, 3.4e38, -1e-45, NaN, 1)],
    ["f64", Float64Array.of(-Infinity, 1.7e308, 5e-324, NaN, 1)],
  ] as const;
  it.each(cases)("finds it in %s", (dtype, values) => {
    const plain = new Uint8Array(values.buffer);
    const moved = new Uint8Array(plain.length + 1).subarray(1);
    moved.set(plain);
    for (const bytes of [plain, moved]) {
      expect(firstNonFinite(bytes, dtype, 0, 5)).toBe(0);
      expect(firstNonFinite(bytes, dtype, 1, 4)).toBe(3);
      expect(firstNonFinite(bytes, dtype, 1, 2)).toBe(-1);
      expect(firstNonFinite(bytes, dtype, 4, 1)).toBe(-1);
      expect(() => firstNonFinite(bytes, dtype, 3, 3)).toThrow(RangeError);
    }
  });

  it.each([
    "f16",
    "bf16",
    "f32",
    "f64",
  ] as const)("finds one anywhere among %s of all signs and exponents, and nothing among the finite", (dtype) => {
    const width = { f16: 2, bf16: 2, f32: 4, f64: 8 }[dtype];
    const count = 9001;
    const bytes = new Uint8Array(count * width);
    // The largest finite value of either sign, and low bits of any kind.
    const [low, high] = { f16: [0xff, 0x7b], bf16: [0x7f, 0x7f], f32: [0x7f, 0x7f], f64: [0xef, 0x7f] }[dtype] as [
      number,
      number,
    ];
    for (let i = 0; i < count; i++) {
      bytes.fill(255, i * width, (i + 1) * width);
      bytes.set([low, high | (i % 3 === 0 ? 0x80 : 0)], (i + 1) * width - 2);
    }
    expect(firstNonFinite(bytes, dtype, 0, count)).toBe(-1);
    const screened = new Uint8Array(screenedMemory(bytes.length + 4), 4, bytes.length);
    expect(screenOf(screened.buffer)).toBeDefined();
    screened.set(bytes);
    expect(firstNonFinite(screened, dtype, 0, count)).toBe(-1);
    for (const at of [0, 1, 2, 7, 8, 2047, 2048, 4095, 4096, 8191, 8192, 8999, 9000]) {
      const spoilt = at % 2 === 0 ? bytes.slice() : screened;
      spoilt.set(bytes);
      spoilt.set(
        { f16: [0, 0xfc], bf16: [0x80, 0x7f], f32: [0x80, 0x7f], f64: [0xf0, 0xff] }[dtype],
        (at + 1) * width - 2,
      );
      expect(firstNonFinite(spoilt, dtype, 0, count)).toBe(at);
      expect(firstNonFinite(spoilt, dtype, 0, at)).toBe(-1);
      expect(firstNonFinite(spoilt, dtype, at + 1, count - at - 1)).toBe(-1);
    }
  });
});
