/**
 * Debian's Python with what some tests need beside us; what is missing is said in the test's name.
 */

import { execFile } from "node:child_process";
import { promisify } from "node:util";

export const PYTHON = "/usr/bin/python3";

const found = new Map<string, Promise<string | undefined>>();

/** undefined where the modules can be imported; else why not. */
export function python(...modules: string[]): Promise<string | undefined> {
  const key = modules.join();
  const known = found.get(key);
  if (known !== undefined) return known;
  const tried = promisify(execFile)(PYTHON, ["-c", `import ${key}`]).then(
    () => undefined,
    () => `skipped: ${PYTHON} has no ${modules.join(" or ")}`,
  );
  found.set(key, tried);
  return tried;
}
