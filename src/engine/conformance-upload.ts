/**
 * The case of rows that are brought beside the operations: they are there, those not finite are
 * told, and operations already called find what was there before.
 */

import { autoencoderDims } from "../sae/dims.ts";
import { bytesOf, float32Of, float64Of } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { encodeBfloat16, encodeFloat16 } from "../util/float16.ts";
import { Rng } from "../util/rng.ts";
import { allocStep, freeStep } from "./allocate.ts";
import type { Case } from "./conformance-case.ts";
import type { Engine } from "./engine.ts";

const ROWS = 70;
const WIDTHS = [1, 4, 13, 64];
const SPOILT = [0, 31, 32, 47];

/** Values that every dtype holds exactly; in `spoilt` rows one element is no number. */
function draw(d: number, seed: number, spoilt: readonly number[]): Float32Array {
  const rng = new Rng(17, seed);
  const values = Float32Array.from({ length: ROWS * d }, () => rng.below(64) - 32);
  for (const [i, row] of spoilt.entries())
    values[row * d + rng.below(d)] = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY][i % 3]!;
  return values;
}

const AS = {
  f16: (values: Float32Array) => half(values, encodeFloat16),
  bf16: (values: Float32Array) => half(values, encodeBfloat16),
  f32: (values: Float32Array) => bytesOf(values),
  f64: (values: Float32Array) => bytesOf(Float64Array.from(values)),
} as const;

function half(values: Float32Array, encode: (values: Float32Array, into: Uint16Array) => number): Uint8Array {
  const into = new Uint16Array(values.length);
  encode(values, into);
  return bytesOf(into);
}

async function check(engine: Engine, dtype: keyof typeof AS, d: number): Promise<void> {
  const what = `${dtype}, d=${d}`;
  const raw = engine.alloc(dtype, [ROWS, d]);
  const rows = engine.alloc("u32", [ROWS]);
  engine.write(rows, bytesOf(Uint32Array.from({ length: ROWS }, (_, row) => row)));
  const x = engine.alloc(engine.real, [ROWS, d]);
  const t = allocStep(engine, autoencoderDims(d, 1));
  const bring = async (values: Float32Array, from: number, to: number) => {
    const all = AS[dtype](values);
    const rowBytes = all.length / ROWS;
    const memory = engine.hostMemory((to - from) * rowBytes);
    memory.set(all.subarray(from * rowBytes, to * rowBytes));
    return engine.upload(raw, memory, from);
  };
  const loaded = async () => {
    const bytes = engine.read(x);
    return async () =>
      engine.real === "f64" ? Array.from(float64Of(await bytes)) : Array.from(float32Of(await bytes));
  };
  const spoilt = draw(d, 1, SPOILT);
  const found = [...(await bring(spoilt, 0, 32)), ...(await bring(spoilt, 32, ROWS)).map((row) => 32 + row)];
  same(`${what}: rows that are not finite`, found, SPOILT);
  const [first, second] = [draw(d, 2, []), draw(d, 3, [])];
  same(`${what}: finite rows`, await bring(first, 0, ROWS), []);
  engine.load(raw, rows, x, t);
  const before = await loaded();
  const bringing = bring(second, 0, ROWS);
  same(`${what}: rows as they were when load was called`, await before(), Array.from(first));
  await bringing;
  engine.load(raw, rows, x, t);
  same(`${what}: rows that were brought`, await (await loaded())(), Array.from(second));
  for (const each of [raw, rows, x]) engine.free(each);
  freeStep(engine, t);
}

function same(what: string, found: readonly number[], expected: readonly number[]): void {
  const at = expected.findIndex((value, i) => found[i] !== value);
  if (at < 0 && found.length === expected.length) return;
  throw new SaettaError(
    `${what}: ${found.slice(0, 8).join(", ")} ... (${found.length}), not ${expected.slice(0, 8).join(", ")} ... (${expected.length})`,
  );
}

export const UPLOAD: Case = {
  name: "rows are brought beside the operations, and those not finite are told",
  run: async (engine) => {
    for (const dtype of Object.keys(AS) as (keyof typeof AS)[]) for (const d of WIDTHS) await check(engine, dtype, d);
    return { worst: 0 };
  },
};
