/** What runs on this machine, why the rest does not, and whether it computes right: the content of `saetta doctor`. */

import { createRequire } from "node:module";
import { arch, cpus, release, type } from "node:os";
import { messageOf } from "../util/errors.ts";
import { VERSION } from "../util/version.ts";
import { selfTest } from "./conformance.ts";
import { cpuPaths, selectEngine } from "./select.ts";

export interface Check {
  readonly name: string;
  readonly ok: boolean;
  /** What was found, or why not, in words. */
  readonly found: string;
  readonly line: string;
}

export interface Findings {
  /** False when an engine that runs computes wrongly. */
  readonly sound: boolean;
  readonly checks: readonly Check[];
}

/** float32 has 24 bits; a step adds up some hundred products. */
const LARGEST_ERROR = { f32: 1e-4, f64: 1e-9 } as const;

export async function examine(): Promise<Findings> {
  const checks: Check[] = [];
  const add = (name: string, ok: boolean, found: string) =>
    checks.push({ name, ok, found, line: `${ok ? "ok  " : "no  "}${name.padEnd(18)}${found}` });
  const processor = cpus()[0]?.model.trim() ?? "unknown processor";
  add("saetta", true, `${VERSION} on Node ${process.versions.node}, ${type()} ${release()} ${arch()}, ${processor} x ${cpus().length}`);
  add("engine reference", true, "float64 in TypeScript; always runs, slowly");
  const cpu = await selectEngine("cpu").catch((error: unknown) => messageOf(error));
  add("engine cpu", typeof cpu !== "string", typeof cpu === "string" ? cpu : cpu.description);
  const paths = await cpuPaths().catch(() => []);
  if (paths.length > 0) add("cpu paths", true, paths.join(", "));
  add("harvest", ...languageModels());
  let sound = true;
  if (typeof cpu !== "string") {
    try {
      const error = await selfTest(cpu, 1);
      sound = error <= LARGEST_ERROR[cpu.real];
      add("self-test", sound, `cpu ${sound ? "agrees" : "does NOT agree"} with reference: ${error.toExponential(0)}`);
    } catch (error) {
      sound = false;
      add("self-test", false, messageOf(error));
    } finally {
      await cpu[Symbol.asyncDispose]();
    }
  }
  return { sound, checks };
}

function languageModels(): [boolean, string] {
  try {
    const manifest: unknown = createRequire(import.meta.url)("onnxruntime-node/package.json");
    return [true, `onnxruntime-node ${String((manifest as { version: unknown }).version)}`];
  } catch {
    return [false, "harvest needs onnxruntime-node: npm install --ignore-scripts onnxruntime-node@1.30.0"];
  }
}
