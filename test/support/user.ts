/**
 * A folder like that of a user who has installed the package: TypeScript in it is compiled strictly
 * against what is published, and run by node.
 */

import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { CHILD_MS } from "./limits.ts";

const run = promisify(execFile);

export interface UserFolder extends AsyncDisposable {
  readonly path: string;
  /**
   * Type-checks and compiles the files, named without `.ts`. Rejects with what the compiler says.
   */
  compile(files: Readonly<Record<string, string>>): Promise<void>;
  /** What the compiled file writes to stdout. Rejects when it fails. */
  node(file: string, ...args: string[]): Promise<string>;
}

export async function userFolder(): Promise<UserFolder> {
  const path = await mkdtemp(join(tmpdir(), "saetta-user-"));
  await mkdir(join(path, "node_modules", "@types"), { recursive: true });
  await symlink(resolve("."), join(path, "node_modules", "saetta"));
  await symlink(resolve("node_modules/@types/node"), join(path, "node_modules", "@types", "node"));
  await writeFile(join(path, "package.json"), JSON.stringify({ type: "module", private: true }));
  return {
    path,
    async compile(files) {
      for (const [name, text] of Object.entries(files)) await writeFile(join(path, `${name}.ts`), text);
      const config = {
        compilerOptions: {
          target: "es2022",
          lib: ["es2023", "esnext.disposable"],
          module: "nodenext",
          types: ["node"],
          strict: true,
          noUncheckedIndexedAccess: true,
          exactOptionalPropertyTypes: true,
          noPropertyAccessFromIndexSignature: true,
        },
        files: Object.keys(files).map((name) => `${name}.ts`),
      };
      await writeFile(join(path, "tsconfig.json"), JSON.stringify(config));
      await run(process.execPath, [resolve("node_modules/typescript/bin/tsc"), "-p", path], { cwd: path }).catch(
        (thrown: { stdout: string }) => {
          throw new Error(thrown.stdout);
        },
      );
    },
    async node(file, ...args) {
      return (await run(process.execPath, [`${file}.js`, ...args], { cwd: path, timeout: CHILD_MS })).stdout;
    },
    [Symbol.asyncDispose]: () => rm(path, { recursive: true }),
  };
}
