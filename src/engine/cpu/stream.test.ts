import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { whyNoCpu } from "../../../test/support/engines.ts";

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));

it.skipIf(whyNoCpu() !== undefined)("the pool does each tile of a million jobs once", { timeout: 120_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), "saetta-stream-"));
  const program = join(folder, "stress");
  const sources = [here("stream.stress.cc"), here("kernels/stream.cc")];
  const compiled = spawnSync(process.env.CXX || "c++", ["-O2", "-std=c++17", "-pthread", ...sources, "-o", program], { encoding: "utf8" });
  expect(compiled.stderr).toBe("");
  const { stdout, signal } = spawnSync(program, { encoding: "utf8", timeout: 60_000 });
  expect({ stdout, signal }).toEqual({ stdout: "every tile once\n", signal: null });
  rmSync(folder, { recursive: true });
});
