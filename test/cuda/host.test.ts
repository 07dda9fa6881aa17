/**
 * The host side of the cuda engine on any machine: over a stand-in for the driver and the libraries
 * (stand-in/*.cc, compiled here), whose kernels are plain loops. What the real kernels compute is
 * for test/gpu.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import koffi from "koffi";
import { afterAll, describe, expect, it } from "vitest";
import { CASES, selfTest } from "../../src/engine/conformance.ts";
import { draw } from "../../src/engine/conformance-draw.ts";
import { GuardedStep } from "../../src/engine/conformance-guarded-step.ts";
import { type CudaOptions, createCudaEngine } from "../../src/engine/cuda/index.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { CHECKS } from "../gpu/checks.ts";
import { EXACT_CHECKS } from "../gpu/exact.ts";
import { RULE_CHECKS } from "../gpu/rules.ts";
import { whyNoCpu } from "../support/engines.ts";
import { refusal } from "../topk.ts";
import { buildStandIn } from "./stand-in.ts";

const folder = mkdtempSync(join(tmpdir(), "saetta-stand-in-"));
const before = process.env.SAETTA_CUDA_LIBS;
afterAll(() => {
  process.env.SAETTA_CUDA_LIBS = before;
  rmSync(folder, { recursive: true });
});

const why = whyNoCpu();
if (why !== undefined) it.skip(`the host side of the cuda engine: ${why}`, () => undefined);
else {
  buildStandIn(folder);
  process.env.SAETTA_CUDA_LIBS = folder; // where the engine looks first
}

const make = (options: CudaOptions): Promise<Engine> =>
  createCudaEngine({ ...options, folders: [join(folder, "build")] });
const ask = (name: string) => (koffi.load(join(folder, "libcuda.so.1")).func(name, "uint32_t", []) as () => number)();

describe.skipIf(why !== undefined)("over a stand-in for CUDA", () => {
  for (const dtype of ["f32", "bf16"] as const) {
    it.for(CASES)(`${dtype}: $name`, async ({ run }, { skip }) => {
      await using engine = await make({ dtype });
      const result = await run(engine, createReferenceEngine());
      if ("skipped" in result) skip(result.skipped);
      else expect(result.worst).toBeLessThanOrEqual(1);
    });

    it.for([...CHECKS, ...RULE_CHECKS])(`${dtype}: $name`, async ({ run }) => {
      const replays = ask("standin_replays");
      expect(await run(make, dtype)).toBeTruthy();
      expect(ask("standin_replays")).toBeGreaterThan(replays);
    });
  }

  it.for(EXACT_CHECKS)("$name", async ({ run }) => {
    expect(await run(make, "f32")).toMatch(/^[1-9]\d* codes$/);
  });

  it("fp16: whole steps", async () => {
    await using engine = await make({ dtype: "fp16" });
    expect(await selfTest(engine, { most: 16 })).toBeLessThan(8 * 2 ** -11);
  });

  it("gives all memory back when it is closed, also what nobody freed", async () => {
    const engine = await make({ dtype: "bf16" });
    const held = ask("standin_allocations");
    const guarded = await GuardedStep.create(engine, draw({ d: 24, n: 90, k: 5, auxk: 40, B: 33, age: () => 5000 }));
    await guarded.whole();
    expect(ask("standin_allocations")).toBeGreaterThan(held);
    await engine.close();
    expect(ask("standin_allocations")).toBe(0);
    await engine.close();
    expect(() => engine.alloc("f32", [1])).toThrow(/after it was closed/);
  });

  it("says how much memory was missing, and goes on", async () => {
    await using engine = await make({ dtype: "f32" });
    expect(() => engine.alloc("f32", [2 ** 30])).toThrow(
      /cuda engine: no room for 4294967296 bytes .*Stand-in has 1.0 GiB; use fewer latents/,
    );
    engine.free(engine.alloc("f32", [2 ** 10]));
  });

  it("reports a row that is not there when something is read", async () => {
    await using engine = await make({ dtype: "f32" });
    const guarded = await GuardedStep.create(engine, draw({ d: 3, n: 5, k: 2, auxk: 0, B: 4 }));
    await guarded.set("rows", [0, 1, 4000, 2]);
    await expect(guarded.load()).rejects.toThrow(/cuda engine: load: row 4000 was asked for/);
  });

  it("refuses shapes in words", async () => {
    await using engine = await make({ dtype: "bf16" });
    expect(refusal(engine, { d: 4, n: 8, k: 8, auxk: 0 })).toBeUndefined();
    expect(refusal(engine, { d: 4, n: 8, k: 9, auxk: 0 })).toMatch(/k = 9 is more than the 8 latents/);
    expect(refusal(engine, { d: 4, n: 8000, k: 2000, auxk: 0 })).toMatch(/k = 2000 is more than the 1024/);
    expect(refusal(engine, { d: 4096, n: 2 ** 20, k: 9, auxk: 0 })).toMatch(
      /weights and moments take \d+ bytes, Stand-in has/,
    );
    expect(engine.description).toBe("cuda: Stand-in, bf16");
  });

  it("refuses what is not its own, freed, or of another shape", async () => {
    await using engine = await make({ dtype: "f32" });
    expect(() => engine.write(createReferenceEngine().alloc("f64", [1]), new Uint8Array(8))).toThrow(
      /of another engine/,
    );
    const tensor = engine.alloc("f32", [2]);
    expect(() => engine.write(tensor, new Uint8Array(8), 4)).toThrow(/8 bytes at 4 do not fit a tensor of 8 bytes/);
    engine.free(tensor);
    expect(() => engine.read(tensor)).toThrow(/after it was freed/);
  });

  it("carries more bytes over than its pinned memory holds", async () => {
    await using engine = await make({ dtype: "f32" });
    const bytes = Buffer.alloc(70_000_003, "a pattern that does not fit any power of two, and is some bytes long");
    const tensor = engine.alloc("u8", [bytes.length]);
    engine.write(tensor, bytes);
    expect(Buffer.compare(await engine.read(tensor), bytes)).toBe(0);
  });
});
