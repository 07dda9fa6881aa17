import { createHash } from "node:crypto";
import { totalmem } from "node:os";
import { describe, expect, it } from "vitest";
import { refusal } from "../../../test/topk.ts";
import { bytesOf } from "../../util/bytes.ts";
import { draw } from "../conformance-draw.ts";
import { GuardedStep } from "../conformance-guarded-step.ts";
import { createReferenceEngine } from "../reference.ts";
import { cpuPaths, createCpuEngine, type InstructionSet } from "./index.ts";

// Without a compiler these tests have nothing to run on; conformance.test.ts says so.
const paths = await cpuPaths().catch(() => []);

/**
 * Hash of every tensor after some steps: several panels, groups and stretches of encode, blocks of
 * rows, and a long list.
 */
async function hashAfterSteps(path: InstructionSet, threads: number): Promise<string> {
  await using engine = await createCpuEngine({ threads, path });
  const bias = (j: number) => (j === 7 ? 12 : undefined);
  const normalization = { kind: "layer_norm", factor: 1 } as const;
  const guarded = await GuardedStep.create(
    engine,
    draw({ d: 35, n: 600, k: 9, auxk: 13, B: 300, bias, ema: true, normalization, hyper: { emaDecay: 0.9, clip: 1 } }),
  );
  for (let step = 0; step < 2; step++) await guarded.whole();
  const hash = createHash("sha256");
  for (const name of guarded.names) hash.update(bytesOf(guarded.get(name)));
  return hash.digest("hex");
}

describe.skipIf(paths.length === 0)("threads", () => {
  it.each(paths)("any number of them gives the same bits, %s", async (path) => {
    const one = await hashAfterSteps(path, 1);
    for (const threads of [2, 3, 5]) expect(await hashAfterSteps(path, threads), `${threads} threads`).toBe(one);
  });

  it("refuses numbers that are none", async () => {
    for (const threads of [0, 1.5, -1, 1e6])
      await expect(createCpuEngine({ threads })).rejects.toThrow(
        /^--threads must be a whole number from 1 to 1024, but is /,
      );
  });
});

describe.skipIf(paths.length === 0)("the engine", () => {
  it("describes itself", async () => {
    await using engine = await createCpuEngine({ threads: 1, path: "portable" });
    expect(engine.description).toMatch(/^cpu: .+, 1 thread, portable$/);
  });

  it("refuses an instruction set that does not exist", async () => {
    process.env.SAETTA_CPU = "mmx";
    try {
      await expect(createCpuEngine()).rejects.toThrow(
        /^environment: SAETTA_CPU must be portable.*, but is "mmx";.* use portable/,
      );
    } finally {
      delete process.env.SAETTA_CPU;
    }
  });

  it("refuses shapes in words", async () => {
    await using engine = await createCpuEngine({ threads: 1 });
    expect(refusal(engine, { d: 4, n: 8, k: 8, auxk: 0 })).toBeUndefined();
    expect(refusal(engine, { d: 4, n: 8, k: 9, auxk: 0 })).toMatch(/k = 9 is more than the 8 latents/);
    expect(refusal(engine, { d: 4096, n: 2 ** 31, k: 9, auxk: 0 })).toMatch(/weights and moments take \d+ bytes/);
  });

  it("says how much memory was missing, and goes on", async () => {
    await using engine = await createCpuEngine({ threads: 1 });
    expect(() => engine.alloc("f32", [2 ** 20, 2 ** 30])).toThrow(
      /no room for 4503599627370496 bytes .*use fewer latents/,
    );
    const half = Math.floor(totalmem() / 2);
    const first = engine.alloc("u8", [half]);
    expect(() => engine.alloc("u8", [half + 2])).toThrow(`${half} bytes are in use`);
    engine.free(first);
    engine.free(engine.alloc("u8", [half + 2]));
  });

  it("reports what failed in an operation when something is read", async () => {
    await using engine = await createCpuEngine({ threads: 2 });
    const guarded = await GuardedStep.create(engine, draw({ d: 3, n: 5, k: 2, auxk: 0, B: 4 }));
    await guarded.set("rows", [0, 1, 4000, 2]);
    await expect(guarded.load()).rejects.toThrow(/cpu engine: load: row 4000 was asked for/);
  });

  it("answers reads under way when it is closed, and nothing after", async () => {
    const engine = await createCpuEngine({ threads: 2 });
    const tensor = engine.alloc("u8", [3]);
    engine.write(tensor, Uint8Array.of(1, 2, 3));
    const reads = Promise.all(Array.from({ length: 300 }, () => engine.read(tensor)));
    await engine[Symbol.asyncDispose]();
    expect((await reads).every((bytes) => bytes[2] === 3)).toBe(true);
    expect(() => engine.read(tensor)).toThrow(/after it was closed/);
    await engine[Symbol.asyncDispose]();
  });

  it("refuses what is not its own, freed, or of another shape", async () => {
    await using engine = await createCpuEngine({ threads: 1 });
    expect(() => engine.write(createReferenceEngine().alloc("f64", [1]), new Uint8Array(8))).toThrow(
      /of another engine/,
    );
    const tensor = engine.alloc("f32", [2]);
    expect(() => engine.write(tensor, new Uint8Array(8), 4)).toThrow(/8 bytes at 4 do not fit a tensor of 8 bytes/);
    engine.free(tensor);
    expect(() => engine.read(tensor)).toThrow(/after it was freed/);
  });
});
