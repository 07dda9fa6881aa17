/**
 * What a step takes besides weights, moments, copies of the encoder in bf16 and the batch (raw rows
 * and x): at most 64 MB and 5 KB a row, 16 KB with 256 dead latents selected. It hardly depends on
 * n (37 bytes a latent), so a small n shows it; every list is long then, which takes the most.
 */

import { describe, expect, it } from "vitest";
import { dimsOf, newState, newStep, type TopkSizes } from "../../../test/topk.ts";
import { startParams } from "../../train/state.ts";
import { bytesOf } from "../../util/bytes.ts";
import { Rng } from "../../util/rng.ts";
import { HYPERS } from "../conformance-draw.ts";
import { kernelLibrary } from "./compile.ts";
import { cpuPaths, createCpuEngine, type InstructionSet } from "./index.ts";
import { loadNative } from "./native.ts";

// Without a compiler these tests have nothing to run on; conformance.test.ts says so.
const paths = await cpuPaths().catch(() => []);
/** The best with the product in float32, and the best. */
const chosen = [
  ...new Set([paths.filter((path) => !path.includes("bf16") && path !== "amx").at(-1), paths.at(-1)]),
].filter((path) => path !== undefined);

/** Bytes at the peak of a first step beyond what is named above. One latent in four is dead. */
async function bytesOfStep(path: InstructionSet, shape: TopkSizes, B: number): Promise<number> {
  const native = await loadNative(await kernelLibrary());
  const before = native.held();
  await using engine = await createCpuEngine({ path, threads: 2 });
  const state = newState(engine, shape, false);
  startParams(engine, state.params, dimsOf(shape), 1, new Float64Array(shape.d));
  engine.write(
    state.age,
    bytesOf(Uint32Array.from({ length: shape.n }, (_, j) => (j % 4 === 0 ? 2 * HYPERS.deadAfter : 0))),
  );
  const raw = engine.alloc("f32", [B, shape.d]);
  const rng = new Rng(1);
  const values = Float32Array.from({ length: 1024 * shape.d }, () => rng.normal());
  for (let at = 0; at < B * shape.d; at += values.length) engine.write(raw, bytesOf(values), at * 4);
  await engine.read(state.counters);
  native.resetPeak();
  const step = newStep(engine, shape, B);
  const index = Uint32Array.from({ length: B }, (_, b) => b);
  step.run(state, raw, index, { ...HYPERS, clip: 1, rows: B }, true);
  await engine.read(step.step.bad);
  const { n, d } = shape;
  const isHalf = path.includes("bf16") || path === "amx";
  const known = 3 * 4 * (2 * n * d + n + d) + (isHalf ? 2 * n * d + 8 * n : 0) + 2 * 4 * B * d;
  return native.peak() - before - known;
}

describe.skipIf(paths.length === 0)("a step's working memory", () => {
  const cases = [
    ...chosen.flatMap((path) => [1024, 16384].map((B) => ({ path, B, auxk: 0 }))),
    ...chosen.slice(-1).map((path) => ({ path, B: 16384, auxk: 256 })),
  ];
  it.each(cases)("is bounded: $path, $B rows, auxk $auxk", async ({ path, B, auxk }) => {
    const bytes = await bytesOfStep(path, { d: 768, n: 1024, k: 32, auxk }, B);
    // Codes, gradients' entries and err are a part of it that must be there.
    expect(bytes).toBeGreaterThan(B * (4 * 768 + 24 * 32));
    expect(bytes).toBeLessThanOrEqual(64e6 + B * (auxk === 0 ? 5000 : 16000));
  });
});

describe.skipIf(paths.length === 0)("held bytes", () => {
  it("are given back when the engine is closed", async () => {
    const native = await loadNative(await kernelLibrary());
    const before = native.held();
    const engine = await createCpuEngine({ threads: 2 });
    // The smaller is malloc's, the larger has pages of its own.
    for (const bytes of [1000, 20_000_000]) engine.free(engine.alloc("u8", [bytes]));
    const tensor = engine.alloc("u8", [5_000_000]);
    await engine.read(tensor);
    expect(native.held() - before).toBe(5_000_000);
    expect(native.peak() - before).toBeGreaterThanOrEqual(20_000_000);
    native.resetPeak();
    expect(native.peak() - before).toBe(5_000_000);
    await engine.close();
    expect(native.held()).toBe(before);
  });
});
