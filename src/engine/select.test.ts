import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { whyNoCpu } from "../../test/support/engines.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { cpuPaths } from "./cpu/index.ts";
import { ENGINE_NAMES, ENGINES } from "./registry.ts";
import { collectiveKind, selectEngine } from "./select.ts";

// "auto" is to come down to the cpu engine here, whether the machine has a card or not.
beforeEach(() => vi.stubEnv("CUDA_VISIBLE_DEVICES", ""));
afterEach(() => vi.unstubAllEnvs());

describe("auto", () => {
  it("falls back where the cpu engine cannot run, and says why", async () => {
    // Not by a missing compiler: kernels that are compiled already are used without one.
    vi.doMock("./cpu/index.ts", () => ({
      createCpuEngine: () => Promise.reject(new SaettaError("no-such-compiler cannot be run")),
    }));
    const notes: string[] = [];
    await using engine = await selectEngine("auto", { dtype: "bf16", onNote: (note) => notes.push(note) });
    vi.doUnmock("./cpu/index.ts");
    expect(engine).toMatchObject({ name: "reference", real: "f64" });
    expect(notes).toEqual([
      expect.stringMatching(/^the cpu engine cannot run \(.*no-such-compiler.*\); the reference engine is used/),
    ]);
  });
});

describe("on a card", () => {
  it("inference is in f32 unless another dtype is asked for, and training in what the engine chooses", async () => {
    const asked: (string | undefined)[] = [];
    vi.doMock("./cuda/index.ts", () => ({
      createCudaEngine: ({ dtype }: { readonly dtype?: string }) => Promise.resolve(asked.push(dtype)),
    }));
    try {
      await selectEngine("cuda", { inference: true });
      await selectEngine("cuda", { inference: true, dtype: "auto" });
      await selectEngine("cuda", { inference: true, dtype: "bf16" });
      await selectEngine("cuda");
    } finally {
      vi.doUnmock("./cuda/index.ts");
    }
    expect(asked).toEqual(["f32", "f32", "bf16", undefined]);
  });
});

describe.skipIf(whyNoCpu() !== undefined)("on the cpu engine", () => {
  it.each([
    "cpu",
    "auto",
  ] as const)("%s with what the processor does not have is a UsageError, and nothing else is used", async (name) => {
    vi.stubEnv("SAETTA_CPU", "portable");
    const refused = await selectEngine(name, { dtype: "bf16" }).catch((thrown: unknown) => thrown);
    expect(refused).toBeInstanceOf(UsageError);
    expect(String(refused)).toContain("portable has no product in bf16");
    for (const dtype of ["auto", "f32", undefined] as const) {
      await using engine = await selectEngine(name, { dtype });
      expect(engine.description).toMatch(/portable$/);
    }
  });

  it("dtype decides whether the product is in bf16", async (context) => {
    vi.stubEnv("SAETTA_CPU", "");
    const best = (await cpuPaths()).at(-1)!;
    if (best !== "avx512_bf16" && best !== "amx") context.skip(`no product in bf16 here: ${best}`);
    for (const dtype of ["auto", "bf16", undefined] as const) {
      await using engine = await selectEngine("cpu", { dtype });
      expect(engine.description).toMatch(best === "amx" ? /product in bf16 \(AMX\)$/ : /product in bf16$/);
    }
    await using engine = await selectEngine("cpu", { dtype: "f32" });
    expect(engine.description).toMatch(/AVX-512$/);
  });

  it("paths begin with the one that every machine has", async () => {
    expect((await cpuPaths())[0]).toBe("portable");
  });
});

it("the reference engine takes any dtype, and computes in float64", async () => {
  for (const dtype of ["auto", "f32", "bf16"] as const) {
    await using engine = await selectEngine("reference", { dtype });
    expect(engine.real).toBe("f64");
  }
});

describe("the registry", () => {
  it("gives --engine its values, auto first", () => {
    expect(ENGINE_NAMES).toEqual(["cpu", "cuda", "reference"]);
    expect(ENGINES.map(({ name }) => name).at(-1)).toBe("reference");
  });

  it("says what joins the ranks of each engine", async () => {
    expect(await Promise.all(ENGINE_NAMES.map(collectiveKind))).toEqual(["mpi", "nccl", "mpi"]);
    expect(await collectiveKind("auto")).toBe("mpi");
  });

  it("refuses a type that an engine does not compute in, and names one that does", async () => {
    await expect(selectEngine("cpu", { dtype: "fp16" })).rejects.toThrow(
      "the cpu engine does not compute in fp16; use --dtype f32 or bf16, or --engine cuda",
    );
  });
});
