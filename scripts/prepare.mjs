// Run by npm in a checkout, never when the package is installed: builds, and compiles the kernels
// so that the first run need not. What is missing (TypeScript, a compiler) is left alone: an
// install must not fail for it.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
if (existsSync("node_modules/typescript/bin/tsc")) {
  await import("./build.mjs");
  const { prepareCpuKernels } = await import("../dist/engine/cpu/index.js");
  try {
    await prepareCpuKernels();
  } catch (error) {
    console.error(`note: the kernels of the cpu engine were not compiled: ${error.message}`);
  }
}
