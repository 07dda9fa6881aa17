/**
 * An engine without float64: the reference, whose numbers of a step and counters are rounded to
 * float32 after every call.
 */

import { describe, expect, it } from "vitest";
import { bytesOf, float32Of, float64Of } from "../util/bytes.ts";
import { CASES } from "./conformance.ts";
import type { Engine, Tensor } from "./engine.ts";
import { createReferenceEngine } from "./reference.ts";
import type { ReferenceTensor } from "./reference-memory.ts";

/** `declared`: what the engine says that it stores its numbers in; in truth it is f32. */
function withoutFloat64(declared: "f32" | "f64"): Engine {
  const inner = createReferenceEngine();
  /** Tensors that others see as f32, and the reference's own. */
  const stored = new Map<unknown, ReferenceTensor>();
  const inside = (it: unknown): unknown => {
    if (stored.has(it)) return stored.get(it);
    const isPlain = typeof it === "object" && it !== null && Object.getPrototypeOf(it) === Object.prototype;
    if (!isPlain) return it;
    const values = Object.entries(it).map(([name, value]) => [name, value, inside(value)] as const);
    if (values.every(([, value, own]) => value === own)) return it;
    return Object.fromEntries(values.map(([name, , own]) => [name, own]));
  };
  const own: Partial<Engine> & Readonly<Record<string, unknown>> = {
    numbers: declared,
    alloc(dtype, shape): Tensor {
      if (dtype !== declared || shape.length !== 1) return inner.alloc(dtype, shape);
      const seen = { dtype, shape };
      stored.set(seen, inner.alloc("f64", shape) as ReferenceTensor);
      return seen;
    },
    write(t, bytes, at = 0) {
      if (!stored.has(t) || declared === "f64") inner.write(inside(t) as Tensor, bytes, at);
      else inner.write(inside(t) as Tensor, bytesOf(Float64Array.from(float32Of(bytes.slice()))), 2 * at);
      round();
    },
    async read(t) {
      const bytes = await inner.read(inside(t) as Tensor);
      return stored.has(t) && declared === "f32" ? bytesOf(Float32Array.from(float64Of(bytes))) : bytes;
    },
  };
  const round = () => {
    for (const { bytes } of stored.values()) {
      const values = new Float64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8);
      values.set(Float32Array.from(values));
    }
  };
  return new Proxy(inner, {
    get(target, name) {
      if (typeof name === "string" && Object.hasOwn(own, name)) return own[name];
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== "function") return value;
      return (...args: unknown[]) => {
        const result: unknown = Reflect.apply(value, target, args.map(inside));
        round();
        return result;
      };
    },
  });
}

describe("an engine that stores its numbers in f32", () => {
  it.for(CASES)("$name", async ({ run }, { skip }) => {
    const result = await run(withoutFloat64("f32"), createReferenceEngine());
    if ("skipped" in result) skip(result.skipped);
    else expect(result.worst).toBeLessThanOrEqual(1);
  });

  it("is found out when it does not say so", async () => {
    const failures = await Promise.all(
      CASES.map(({ run }) =>
        run(withoutFloat64("f64"), createReferenceEngine()).then(
          (result) => !("skipped" in result) && result.worst > 1,
          () => true,
        ),
      ),
    );
    expect(failures.filter(Boolean).length).toBeGreaterThan(3);
  });
});
