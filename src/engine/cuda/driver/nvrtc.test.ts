/**
 * Every kernel, compiled for each architecture by NVRTC as the engine does it or, where there is
 * none, by nvcc, hardly optimised. What is compiled is kept, so that only changes are compiled
 * again.
 */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { cacheFolders, keepIn } from "../../../util/cache.ts";
import { messageOf } from "../../../util/errors.ts";
import { COMPUTE, type Compute } from "../contract.ts";
import { KERNELS, Nvrtc } from "./nvrtc.ts";

/** Ampere, Hopper, Blackwell, in each compute type at least once. */
const TARGETS: readonly (readonly [number, Compute])[] = [
  [80, "bf16"],
  [80, "fp16"],
  [90, "bf16"],
  [90, "f32"],
  [100, "bf16"],
];

const nvrtc = await Nvrtc.load().catch(messageOf);
const nvcc = spawnSync("nvcc", ["--version"], { encoding: "utf8" });

if (typeof nvrtc !== "string") {
  it.each(TARGETS)("NVRTC compiles every kernel for sm_%d in %s", async (capability, compute) => {
    const cubins = await nvrtc.cubins(capability, compute);
    expect([...cubins.keys()]).toEqual(sources());
    for (const cubin of cubins.values()) expect(Buffer.from(cubin.slice(0, 4)).toString("latin1")).toBe("\x7fELF");
  });

  it("NVRTC's complaint is shown, and nothing is kept", async () => {
    await expect(
      nvrtc.compile("wrong.cu", Buffer.from("__global__ void f() { wrong(); }"), ["-arch=sm_90a"]),
    ).rejects.toThrow(
      /^cuda engine: wrong.cu cannot be compiled \(NVRTC [\d.]+\): wrong.cu\(1\): error: identifier "wrong" is undefined \|/,
    );
  });

  it("says when it does not know an architecture", async () => {
    await expect(nvrtc.cubins(999, "bf16", [])).rejects.toThrow(
      /does not know this card's architecture, sm_999 \(it goes to sm_\d+\); install a newer/,
    );
  });
} else if (nvcc.status === 0) {
  it.each(TARGETS)("nvcc compiles every kernel for sm_%d in %s", async (capability, compute) => {
    const next = sources().values();
    const compileSome = async () => {
      for (const name of next) expect((await byNvcc(name, capability, compute)).length).toBeGreaterThan(0);
    };
    await Promise.all(Array.from({ length: availableParallelism() }, compileSome));
  });
} else {
  it.skip(`the kernels of the cuda engine: no nvcc, and ${nvrtc}`, () => undefined);
}

function sources(): string[] {
  const names = readdirSync(KERNELS).sort();
  return names.filter((name) => name.endsWith(".cu")).map((name) => name.slice(0, -3));
}

async function byNvcc(name: string, capability: number, compute: Compute): Promise<Uint8Array> {
  const target = `${capability}${capability >= 90 ? "a" : ""}`;
  const flags = [
    "-cubin",
    `-gencode=arch=compute_${target},code=sm_${target}`,
    "-std=c++17",
    "-ftz=true",
    `-DSAETTA_COMPUTE=${COMPUTE.indexOf(compute)}`,
    // Whether it compiles is all that is asked; to optimise takes twice as long as all the rest.
    ...["-Xcicc", "-O1", "-Xptxas", "-O0"],
  ];
  const hash = createHash("sha256").update(JSON.stringify([name, flags, nvcc.stdout]));
  for (const each of [`${name}.cu`, ...readdirSync(KERNELS).filter((file) => file.endsWith(".cuh"))])
    hash.update(readFileSync(join(KERNELS, each)));
  return keepIn(cacheFolders(), `${hash.digest("hex").slice(0, 32)}.nvcc.cubin`, async () => {
    const folder = await mkdtemp(join(tmpdir(), "saetta-nvcc-"));
    try {
      const { promisify } = await import("node:util");
      const { execFile } = await import("node:child_process");
      await promisify(execFile)("nvcc", [...flags, join(KERNELS, `${name}.cu`), "-o", join(folder, "cubin")]);
      expect(await readdir(folder)).toEqual(["cubin"]);
      return await readFile(join(folder, "cubin"));
    } finally {
      await rm(folder, { recursive: true });
    }
  });
}
