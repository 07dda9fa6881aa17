/** The Python package's own tests, by Debian's Python. */

import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { CHILD_MS } from "../support/limits.ts";
import { PYTHON, python } from "../support/python.ts";

const FOLDER = fileURLToPath(new URL("../../python", import.meta.url));
const missing = await python("sys");
const torch = await python("torch");
const note = missing ?? (torch === undefined ? undefined : "without tensors: no torch");

describe.skipIf(missing !== undefined)(`the Python package${note === undefined ? "" : ` (${note})`}`, () => {
  it("passes its own tests (python/tests)", async () => {
    const { stderr } = await promisify(execFile)(PYTHON, ["-m", "unittest", "discover", "--top", ".", "tests"], {
      cwd: FOLDER,
      timeout: CHILD_MS,
      // Threads that wait for each other by spinning take minutes on a busy machine.
      env: { ...process.env, PYTHONDONTWRITEBYTECODE: "1", OMP_NUM_THREADS: "1" },
    });
    expect(stderr).toMatch(/\nRan \d+ tests in .*\n\nOK/);
  });
});
