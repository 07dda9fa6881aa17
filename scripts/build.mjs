// TypeScript -> dist/, with the sources of the kernels beside it and the command executable.
import { execFileSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
rmSync("dist", { recursive: true, force: true });
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.build.json"], { stdio: "inherit" });
if (existsSync("src/engine/cpu/kernels")) cpSync("src/engine/cpu/kernels", "dist/engine/cpu/kernels", { recursive: true });
chmodSync("dist/cli.js", 0o755);
