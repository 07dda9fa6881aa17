// The PyTorch step (step_torch.py), and what the machine can do at most (ceilings.cc): both as
// programs that measure when asked, so that they can be measured in turn with ours.
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Child } from "./child.mjs";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const run = promisify(execFile);

/** Python with torch: `$SAETTA_BENCH_PYTHON`, else Debian's. */
export const PYTHON = process.env.SAETTA_BENCH_PYTHON || "/usr/bin/python3";

/** { child } that answers "none" or an auxk with a step's time, or { why } there is none. */
export async function startTorch({ d, n, k }, batch, threads) {
  try {
    return {
      child: await Child.start(PYTHON, [here("step_torch.py"), ...[d, n, k, batch, threads].map(String)], threads),
    };
  } catch (error) {
    return {
      why: `PyTorch is left out: ${PYTHON}: ${error.message}; install python3-torch, or name a Python that has torch in SAETTA_BENCH_PYTHON`,
    };
  }
}

/** Compiles ceilings.cc, with oneDNN where it is installed, and starts it: { child } or { why }. */
export async function startCeilings({ d, n }, batch, threads) {
  const compiler = (process.env.CXX || "c++").trim().split(/\s+/);
  const folder = await mkdtemp(join(tmpdir(), "saetta-ceilings-"));
  const program = join(folder, "ceilings");
  const words = ["-O3", "-std=c++17", "-pthread", here("ceilings.cc"), "-o", program];
  const compile = (...more) => run(compiler[0], [...compiler.slice(1), ...words, ...more]);
  try {
    // Without oneDNN's header or library the first does not compile.
    await compile("-DHAVE_ONEDNN", "-ldnnl", "-ldl").catch(() => compile("-ldl"));
    return { child: await Child.start(program, [threads, batch, d, n].map(String), threads) };
  } catch (error) {
    return {
      why: `the ceilings are left out: ${error.message.split("\n").find((line) => line.includes("error")) ?? error.message}`,
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
