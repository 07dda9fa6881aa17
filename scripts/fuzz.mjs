// Mutated files against the readers: what runs it is TypeScript, so it is compiled first. The
// arguments are those of test/fuzz/main.ts.
import { execFileSync } from "node:child_process";
import { cpSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
process.chdir(root);
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "test/fuzz/tsconfig.json"], {
  stdio: "inherit",
});
cpSync("package.json", "build/fuzz/package.json");
await import(pathToFileURL(`${root}/build/fuzz/test/fuzz/main.js`).href);
