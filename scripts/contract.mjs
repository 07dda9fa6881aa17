// dist/ -> the headers that kernels share with TypeScript, made from src/engine/*/contract.ts,
// where they have changed.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export async function writeContracts() {
  const { cpuHeader } = await import("../dist/engine/cpu/contract.js");
  const { cudaHeader } = await import("../dist/engine/cuda/contract.js");
  write("cpu/kernels/contract.h", cpuHeader());
  write("cuda/kernels/contract.cuh", cudaHeader());
}

function write(name, text) {
  const path = fileURLToPath(new URL(`../src/engine/${name}`, import.meta.url));
  let before = "";
  try {
    before = readFileSync(path, "utf8");
  } catch {}
  if (before !== text) writeFileSync(path, text);
}
