/**
 * What runs on this machine, why the rest does not, and whether it computes right: the content of
 * `saetta doctor`.
 */

import { createRequire } from "node:module";
import { arch, cpus, release, type } from "node:os";
import { messageOf } from "../util/errors.ts";
import { VERSION } from "../util/version.ts";
import { selfTest } from "./conformance.ts";
import type { Engine } from "./engine.ts";
import { ENGINES } from "./registry.ts";
import { selectEngine } from "./select.ts";

export interface Check {
  readonly name: string;
  readonly ok: boolean;
  /** What was found, or why not, in words. */
  readonly found: string;
  readonly line: string;
}

export interface Examination {
  /** False when an engine that runs computes wrongly. */
  readonly sound: boolean;
  readonly checks: readonly Check[];
}

/**
 * float32 has 24 bits; a step adds up some hundred products. Where these are of narrower numbers,
 * some of their roundings.
 */
const LARGEST_ERROR = { f32: 1e-4, f64: 1e-9 } as const;
const ROUNDINGS = 8;

export async function examine(): Promise<Examination> {
  const checks: Check[] = [];
  const add = (name: string, ok: boolean, found: string) =>
    checks.push({ name, ok, found, line: `${ok ? "ok  " : "no  "}${name.padEnd(18)}${found}` });
  const processor = cpus()[0]?.model.trim() ?? "unknown processor";
  add(
    "saetta",
    true,
    `${VERSION} on Node ${process.versions.node}, ${type()} ${release()} ${arch()}, ${processor} x ${cpus().length}`,
  );
  add("engine reference", true, "float64 in TypeScript; always runs, slowly");
  const engines: Engine[] = [];
  for (const { name, details } of [...ENGINES].reverse()) {
    if (name === "reference") continue;
    const engine = await selectEngine(name).catch((error: unknown) => messageOf(error));
    add(`engine ${name}`, typeof engine !== "string", typeof engine === "string" ? engine : engine.description);
    if (typeof engine !== "string") engines.push(engine);
    for (const [what, found] of await details(typeof engine !== "string").catch(() => []))
      add(what, true, found.join(", "));
  }
  add("harvest", ...languageModels());
  let sound = true;
  for (const engine of engines) {
    try {
      const error = await selfTest(engine, { seconds: 1 });
      const agrees = error <= Math.max(LARGEST_ERROR[engine.real], ROUNDINGS * (engine.rounding ?? 0));
      sound &&= agrees;
      add(
        "self-test",
        agrees,
        `${engine.name} ${agrees ? "agrees" : "does NOT agree"} with reference: ${error.toExponential(0)}`,
      );
    } catch (error) {
      sound = false;
      add("self-test", false, messageOf(error));
    } finally {
      await engine[Symbol.asyncDispose]();
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
