/** The stand-in for the driver and the libraries (stand-in/*.cc), compiled. */

import { spawnSync } from "node:child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** Compiles it into the folder, which is what SAETTA_CUDA_LIBS is to name. */
export function buildStandIn(folder: string): void {
  const sources = [
    "driver.cc",
    "kernels.cc",
    "encode.cc",
    "screen.cc",
    "cut.cc",
    "paths.cc",
    "gradients.cc",
    "update.cc",
  ].map((name) => fileURLToPath(new URL(`stand-in/${name}`, import.meta.url)));
  const library = join(folder, "libcuda.so.1");
  const flags = ["-O3", "-std=c++17", "-ffp-contract=off", "-shared", "-fPIC"];
  const { status, stderr } = spawnSync(process.env.CXX || "c++", [...flags, ...sources, "-o", library], {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(stderr);
  for (const name of ["libnvrtc.so.13", "libcublasLt.so.13"]) symlinkSync(library, join(folder, name));
  mkdirSync(join(folder, "include"));
  writeFileSync(join(folder, "include", "cuda_bf16.h"), "");
}
