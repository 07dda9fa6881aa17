import { describe, expect, it } from "vitest";
import { refusal } from "../../test/topk.ts";
import { bytesOf, float64Of } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { HYPER, type Step } from "./engine.ts";
import { createReferenceEngine } from "./reference.ts";
import { sumsLength } from "./sums.ts";

const engine = createReferenceEngine();

function stepOf(d: number, n: number): Step {
  return {
    hyper: engine.alloc("f64", [HYPER.length]),
    sums: engine.alloc("f64", [sumsLength(d)]),
    fired: engine.alloc("u32", [n]),
    bad: engine.alloc("u32", [1]),
    sq: engine.alloc("f64", [1]),
    cut: engine.alloc("f64", [1]),
    active: engine.alloc("f64", [1]),
  };
}

describe("reference engine", () => {
  it.each([
    ["f16", Uint16Array.of(0x3c00, 0xc000, 0x0001, 0x7bff), [1, -2, 2 ** -24, 65504]],
    ["bf16", Uint16Array.of(0x3f80, 0xc000, 0x0001, 0x4049), [1, -2, 2 ** -133, 3.140625]],
    ["f32", Float32Array.of(1.5, -2, 3, 4), [1.5, -2, 3, 4]],
    ["f64", Float64Array.of(0.1, -2, 3, 4), [0.1, -2, 3, 4]],
  ] as const)("loads %s", async (dtype, data, values) => {
    const [raw, rows, x] = [engine.alloc(dtype, [2, 2]), engine.alloc("u32", [2]), engine.alloc("f64", [2, 2])];
    engine.write(raw, bytesOf(data));
    engine.write(rows, bytesOf(Uint32Array.of(1, 0)));
    engine.load(raw, rows, x, stepOf(2, 1));
    expect([...float64Of(await engine.read(x))]).toEqual([...values.slice(2), ...values.slice(0, 2)]);
  });

  it("keeps what went wrong in an operation for read", async () => {
    const broken = createReferenceEngine();
    const [raw, rows, x] = [broken.alloc("f32", [2, 3]), broken.alloc("u32", [1]), broken.alloc("f64", [1, 3])];
    broken.write(rows, bytesOf(Uint32Array.of(2)));
    broken.load(raw, rows, x, stepOf(3, 1));
    await expect(broken.read(x)).rejects.toThrow("row 2 was asked for, there are 2");
  });

  it("refuses a tensor that was freed, one of another engine, one of the wrong dtype, and bytes that do not fit", async () => {
    const freed = engine.alloc("f64", [2]);
    engine.free(freed);
    expect(() => engine.write(freed, new Uint8Array(8))).toThrow(SaettaError);
    const other = { dtype: "f64", shape: [1] } as const;
    expect(() => engine.write(other, new Uint8Array(8))).toThrow("another engine");
    expect(() => engine.write(engine.alloc("u32", [2]), new Uint8Array(8), 4)).toThrow(
      "8 bytes at 4 do not fit a tensor of 8 bytes",
    );
    const broken = createReferenceEngine();
    const z = broken.codes(1, 1);
    const wrong = broken.alloc("f32", [1, 1]);
    broken.decode({ encoder: wrong, latentBias: wrong, decoder: wrong, preBias: wrong }, { codes: z, err: wrong });
    await expect(broken.read(wrong)).rejects.toThrow("a tensor of f64 is needed here, this one is f32");
  });

  it("says how much memory it wanted, and what it cannot hold", () => {
    expect(() => engine.alloc("f64", [2 ** 30, 2 ** 20])).toThrow("no room for a tensor of 9007199254740992 bytes");
    expect(refusal(engine, { d: 2 ** 12, n: 2 ** 20, k: 1, auxk: 0 })).toContain("at most");
    expect(refusal(engine, { d: 64, n: 512, k: 8, auxk: 8 })).toBeUndefined();
  });
});
