import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { whyNoCpu } from "../../../test/support/engines.ts";
import { cpuHeader } from "../cpu/contract.ts";
import { cudaHeader, FILES } from "../cuda/contract.ts";
import { layoutOf } from "./layout.ts";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const read = (path: string) => readFileSync(here(path), "utf8");

describe("the kernels' headers", () => {
  it.each([
    ["../cpu/kernels/contract.h", cpuHeader],
    ["../cuda/kernels/contract.cuh", cudaHeader],
  ])("%s is what the contract makes; npm run build writes it", (path, header) => {
    expect(read(path)).toBe(header());
  });

  it("every CUDA kernel takes what the contract gives it, in the file that it is in", () => {
    const found: string[] = [];
    for (const name of readdirSync(here("../cuda/kernels")).filter((each) => each.endsWith(".cu"))) {
      const kernels = read(`../cuda/kernels/${name}`).matchAll(
        /extern "C" __global__ void(?: __\w+__\([^)]*\))?\s+(\w+)\(([^{]*)\) \{/g,
      );
      for (const [, kernel, parameters] of kernels) found.push(`${name.slice(0, -3)}: ${kernel}(${parameters})`);
    }
    const expected = Object.entries(FILES).flatMap(([file, kernels]) =>
      Object.keys(kernels).map((kernel) => `${file}: ${kernel}(PARAMETERS(${kernel}))`),
    );
    expect(new Set(found)).toEqual(new Set(expected));
  });
});

describe("layoutOf", () => {
  const contract = {
    enums: { Kind: { values: ["a", "b"] } },
    constants: {},
    structs: { Pair: { first: "u32", second: "double" } },
  };

  it("puts each field where C does", () => {
    const fields = { kind: "Kind", at: "float*", pair: "Pair", n: "u32", all: "void*[2]", last: "float" };
    const { size, alignment, put } = layoutOf(fields, contract);
    expect([size, alignment]).toEqual([60, 8]);
    const view = new DataView(new ArrayBuffer(64));
    put(view, 0, { kind: 1, at: 2 ** 40 + 1, pair: { first: 3, second: 0.5 }, n: 4, all: [5, 2 ** 47], last: 1.5 });
    expect(view.getUint32(0, true)).toBe(1);
    expect(view.getBigUint64(8, true)).toBe(2n ** 40n + 1n);
    expect(view.getUint32(16, true)).toBe(3);
    expect(view.getFloat64(24, true)).toBe(0.5);
    expect(view.getUint32(32, true)).toBe(4);
    expect(view.getBigUint64(40, true)).toBe(5n);
    expect(view.getBigUint64(48, true)).toBe(2n ** 47n);
    expect(view.getFloat32(56, true)).toBe(1.5);
  });

  it("refuses a type that nobody has described", () => {
    expect(() => layoutOf({ x: "Unknown" }, contract)).toThrow(/no type Unknown/);
  });
});

/** What the compiler says of the cpu kernels' `file` over a header with `from` for `to`. */
function compiled(file: string, from: string, to: string): string {
  const folder = mkdtempSync(join(tmpdir(), "saetta-contract-"));
  try {
    for (const name of readdirSync(here("../cpu/kernels"))) {
      const text = read(`../cpu/kernels/${name}`);
      if (name === "contract.h") expect(text).toContain(from);
      writeFileSync(join(folder, name), name === "contract.h" ? text.replace(from, to) : text);
    }
    const flags = ["-std=c++17", "-fsyntax-only", join(folder, file)];
    return spawnSync((process.env.CXX || "c++").trim(), flags, { encoding: "utf8" }).stderr;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe.skipIf(whyNoCpu() !== undefined)("a kernel that disagrees with the contract does not compile", () => {
  it.each([
    ["a field has another name", "norm.cc", "u32 countsShared;", "u32 counts;"],
    ["a field is missing", "load.cc", "  Normalization normalization;\n", ""],
    ["a field has another size", "norm.cc", "u32 countsShared;", "u64 countsShared[2];"],
    ["a sum has another name", "param_grad.cc", "CENTRED2,", "CENTERED2,"],
    [
      "a function takes something else",
      "norm.cc",
      "saetta_norm(saetta::Stream* stream, const saetta::Norm* a)",
      "saetta_norm(saetta::Stream* stream, const saetta::Load* a, int b); int saetta_norm(saetta::Stream* stream, const saetta::Norm* a)",
    ],
  ])("%s", (_, file, from, to) => {
    expect(compiled(file, from, to)).toMatch(/error/);
  });
});
