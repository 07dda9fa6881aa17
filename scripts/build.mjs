// TypeScript -> dist/, with the sources of the kernels and the bundled pages beside it, and the command executable.
import { execFileSync } from "node:child_process";
import { chmodSync, cpSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { buildPage } from "./pages.mjs";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
rmSync("dist", { recursive: true, force: true });
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.build.json"], { stdio: "inherit" });
for (const engine of ["cpu", "cuda"]) cpSync(`src/engine/${engine}/kernels`, `dist/engine/${engine}/kernels`, { recursive: true });
await buildPage({ entry: "src/explorer/page/static.ts", name: "static", outDir: "dist/explorer/assets" });
chmodSync("dist/cli.js", 0o755);
