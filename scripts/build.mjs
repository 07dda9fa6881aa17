// TypeScript -> dist/, with the sources of the kernels and the pages next to it, and the command as
// node_modules/.bin/saetta: npm links the commands of dependencies only.
import { execFileSync } from "node:child_process";
import { chmodSync, cpSync, mkdirSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { fileURLToPath } from "node:url";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
rmSync("dist", { recursive: true, force: true });
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.build.json"], { stdio: "inherit" });
const { writeContracts } = await import("./contract.mjs");
await writeContracts();
for (const engine of ["cpu", "cuda"])
  cpSync(`src/engine/${engine}/kernels`, `dist/engine/${engine}/kernels`, { recursive: true });
const { buildPages } = await import("./pages.mjs"); // loaded here: vite is not quick
await buildPages();
chmodSync("dist/cli.js", 0o755);
mkdirSync("node_modules/.bin", { recursive: true });
const link = `node_modules/.bin/saetta.${process.pid}`;
symlinkSync("../../dist/cli.js", link);
renameSync(link, "node_modules/.bin/saetta"); // replaces what is there, also while another build does the same
