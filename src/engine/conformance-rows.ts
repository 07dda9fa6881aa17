/** The cases of rows on their way into a step: gathered, converted, normalised. */

import { rowStatistics } from "../sae/math.ts";
import { bytesOf } from "../util/bytes.ts";
import { Rng } from "../util/rng.ts";
import { type Case, SMALL, within } from "./conformance-case.ts";
import { draw } from "./conformance-draw.ts";
import { GuardedStep, type Setup } from "./conformance-guarded-step.ts";
import { Tally } from "./conformance-tally.ts";
import type { Engine } from "./engine.ts";
import { ROUNDING } from "./numbers.ts";

export const LOADS: readonly Case[] = (["f16", "bf16", "f32", "f64"] as const).map((dtype) => ({
  name: `load: ${dtype} rows, in any order, twice or never`,
  run: async (engine: Engine, reference: Engine) => {
    const tally = new Tally();
    for (const d of [1, 5, 16, 61]) {
      const setup = { ...draw({ ...SMALL, d, B: 200 }), ...rawRows(dtype, d, 200) };
      const [e, r] = [await GuardedStep.create(engine, setup), await GuardedStep.create(reference, setup)];
      await e.load();
      await r.load();
      const round = engine.real === "f32" ? Math.fround : (value: number) => value;
      await within(`d=${d}`, async () => tally.same("x", e.get("x"), r.get("x").map(round)));
      tally.same("bad", e.get("bad"), [0]);
      e.free();
      r.free();
    }
    return { worst: tally.worst };
  },
}));

/** Rows of raw that hold the inputs and the targets of a transcoder, one after the other. */
export const COLUMNS: readonly Case[] = (["f16", "bf16", "f32", "f64"] as const).map((dtype) => ({
  name: `load: some columns of ${dtype} rows, the later ones without touching what the step has found`,
  run: async (engine: Engine, reference: Engine) => {
    const tally = new Tally();
    for (const [width, column, d] of [
      [29, 0, 13],
      [29, 13, 16],
      [5, 4, 1],
    ] as const) {
      const { raw, rows } = rawRows(dtype, width, 40);
      const setup = { ...draw({ ...SMALL, d, B: 40 }), raw: { ...raw, width, column }, rows };
      const [e, r] = [await GuardedStep.create(engine, setup), await GuardedStep.create(reference, setup)];
      for (const guarded of [e, r]) {
        await guarded.set("bad", [2]);
        await guarded.load();
      }
      const round = engine.real === "f32" ? Math.fround : (value: number) => value;
      await within(`columns from ${column} on`, async () => tally.same("x", e.get("x"), r.get("x").map(round)));
      tally.same("bad", e.get("bad"), [column === 0 ? 0 : 2]);
      e.free();
      r.free();
    }
    return { worst: tally.worst };
  },
}));

/**
 * Rows [m,d] of all sizes, with means far from 0, of zeros, and constant; every number can be held
 * in f32.
 */
function unevenRows(d: number): Float32Array {
  const rng = new Rng(6, d);
  const row = (mean: number, spread: number) => Float32Array.from({ length: d }, () => mean + spread * rng.normal());
  const outlier = row(0.1, 1);
  outlier[d - 1] = 3000;
  const rows = [
    row(0, 1),
    row(1000, 1),
    row(-3, 1e-3),
    row(0, 0),
    row(0.1, 0),
    row(-1e30, 0),
    row(0, 1e-20),
    row(1e19, 1e19),
    outlier,
  ];
  return Float32Array.from(rows.flatMap((each) => [...each]));
}

export const NORMALIZED: readonly Case[] = (["scale", "unit", "layer_norm"] as const).map((kind) => ({
  name: `load: rows normalised by ${kind}, also constant ones`,
  run: async (engine: Engine, reference: Engine) => {
    const tally = new Tally();
    for (const d of [1, 2, 3, 8, 16, 31, 61, 130]) {
      const values = unevenRows(d);
      const B = values.length / d;
      const normalization = { kind, factor: kind === "scale" ? 0.37 : 1 };
      for (const raw of ["f32", "f64"] as const) {
        const bytes = bytesOf(raw === "f32" ? values : Float64Array.from(values));
        const rows = Uint32Array.from({ length: B }, (_, i) => B - 1 - i);
        const setup = { ...draw({ ...SMALL, d, B }), raw: { dtype: raw, bytes }, rows, normalization };
        const [e, r] = [await GuardedStep.create(engine, setup), await GuardedStep.create(reference, setup)];
        await e.load();
        await r.load();
        // The statistics are in float64, where the mean takes digits; then the result is rounded
        // once.
        const lost = (i: number) => {
          const row = values.subarray(rows[Math.floor(i / d)] * d).subarray(0, d);
          const { size } = rowStatistics(row, normalization);
          return size === 0
            ? 0
            : (64 * ROUNDING.f64 * row.reduce((most, value) => Math.max(most, Math.abs(value)), 0)) / size;
        };
        const expected = r.get("x");
        const bound = (i: number) => ROUNDING[engine.real] * Math.abs(expected[i]) * (1 + ROUNDING.f32) + lost(i);
        await within(`d=${d} ${raw}`, async () => tally.compare("x", e.get("x"), expected, bound));
        for (const guarded of [e, r]) tally.same("bad", guarded.get("bad"), [0]);
        e.free();
        r.free();
      }
    }
    return { worst: tally.worst };
  },
}));

/**
 * 16-bit rows go through all bit patterns that are numbers, over the widths; the wider ones through
 * random ones of many sizes.
 */
function rawRows(dtype: "f64" | "f32" | "bf16" | "f16", d: number, B: number): Pick<Setup, "raw" | "rows"> {
  const rng = new Rng(5, d);
  const patterns = dtype === "f16" || dtype === "bf16";
  const m = patterns ? Math.ceil(65536 / d) : 50;
  const size = () => rng.normal() * 2 ** (rng.below(60) - 30);
  const sixteen = () =>
    Uint16Array.from({ length: m * d }, (_, i) =>
      (i & (dtype === "f16" ? 0x7c00 : 0x7f80)) === (dtype === "f16" ? 0x7c00 : 0x7f80) ? 0 : i,
    );
  const data = patterns
    ? sixteen()
    : dtype === "f32"
      ? Float32Array.from({ length: m * d }, size)
      : Float64Array.from({ length: m * d }, size);
  return {
    raw: { dtype, bytes: bytesOf(data) },
    rows: Uint32Array.from({ length: B }, (_, i) => (i === 0 ? m - 1 : rng.below(m))),
  };
}
