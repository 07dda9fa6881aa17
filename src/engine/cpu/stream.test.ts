import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { whyNoCpu } from "../../../test/support/engines.ts";
import { CHILD_MS } from "../../../test/support/limits.ts";
import { createCpuEngine, prepareCpuKernels } from "./index.ts";

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));

it.skipIf(whyNoCpu() !== undefined)("the pool does each tile of a million jobs once", () => {
  const folder = mkdtempSync(join(tmpdir(), "saetta-stream-"));
  const program = join(folder, "stress");
  const sources = ["stream.stress.cc", "kernels/stream.cc", "kernels/half.cc", "kernels/encode_bf16.cc"].map(here);
  const compiled = spawnSync(process.env.CXX || "c++", ["-O2", "-std=c++17", "-pthread", ...sources, "-o", program], {
    encoding: "utf8",
  });
  expect(compiled.stderr).toBe("");
  const { stdout, signal } = spawnSync(program, { encoding: "utf8", timeout: CHILD_MS });
  expect({ stdout, signal }).toEqual({ stdout: "every tile once\n", signal: null });
  rmSync(folder, { recursive: true });
});

/** The cpus that a /proc status file allows, as "0-2,5" there. */
function cpusIn(status: string): number[] {
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync(status, "utf8"))![1]!;
  return list.split(",").flatMap((range) => {
    const [first, last = first] = range.split("-").map(Number) as [number, number?];
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

function nativeThreads(): string[] {
  const comm = (thread: string) => readFileSync(`/proc/self/task/${thread}/comm`, "utf8").trim();
  return readdirSync("/proc/self/task").filter((thread) => comm(thread) === "saetta");
}

/** The cpus that each thread of a new engine may run on, once all have started. */
async function cpusOfThreads(threads: number): Promise<number[][]> {
  await using _engine = await createCpuEngine({ threads });
  await expect.poll(nativeThreads).toHaveLength(threads);
  return nativeThreads().map((thread) => cpusIn(`/proc/self/task/${thread}/status`));
}

function whyNotPinned(): string | undefined {
  if (whyNoCpu() !== undefined) return whyNoCpu();
  if (process.platform !== "linux") return "threads are pinned on Linux only";
  return cpusIn("/proc/thread-self/status").length < 2 ? "this process has one cpu" : undefined;
}

const why = whyNotPinned();
describe.skipIf(why !== undefined)(`threads${why === undefined ? "" : ` (skipped: ${why})`}`, () => {
  const cpus = why === undefined ? cpusIn("/proc/thread-self/status") : [];
  // Compiling them may take longer than a test may.
  beforeAll(prepareCpuKernels, 300_000);

  it("stay each on a cpu of its own, where there is one for every cpu of the process", async () => {
    expect((await cpusOfThreads(cpus.length)).sort(([a], [b]) => a! - b!)).toEqual(cpus.map((cpu) => [cpu]));
  });

  it.each([...new Set([1, cpus.length - 1, cpus.length + 1])])("go anywhere otherwise: %d of them", async (threads) => {
    expect(await cpusOfThreads(threads)).toEqual(Array.from({ length: threads }, () => cpus));
  });
});
