// TypeScript -> dist/, with the sources of the kernels and the pages beside it and the command executable.
import { execFileSync } from "node:child_process";
import { chmodSync, cpSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
rmSync("dist", { recursive: true, force: true });
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.build.json"], { stdio: "inherit" });
for (const engine of ["cpu", "cuda"])
  cpSync(`src/engine/${engine}/kernels`, `dist/engine/${engine}/kernels`, { recursive: true });
const { buildPages } = await import("./pages.mjs"); // loaded here: vite is not quick
await buildPages();
chmodSync("dist/cli.js", 0o755);
