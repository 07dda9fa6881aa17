/** The cases of multi-TopK find faults that are put into an engine. */

import { describe, expect, it } from "vitest";
import { WIDE_CASES } from "./conformance-wide.ts";
import type { Engine } from "./engine.ts";
import { createReferenceEngine } from "./reference.ts";

/** A reference engine of which some operations are done otherwise. */
function otherwise(change: (real: Engine) => Partial<Engine>): Engine {
  const real = createReferenceEngine();
  const other = change(real);
  return new Proxy(real, {
    get: (_, name) => {
      const value: unknown = Reflect.get(name in other ? other : real, name);
      return typeof value === "function" ? (value as (...args: unknown[]) => unknown).bind(real) : value;
    },
  });
}

const FAULTS: Readonly<Record<string, (real: Engine) => Partial<Engine>>> = {
  "the wide branch has no gradient": (real) => ({
    paramGrad: ({ wide: _, ...input }) => real.paramGrad(input),
  }),
  "the wide branch is taken for that of the dead": (real) => ({
    paramGrad: ({ wide, ...input }) => real.paramGrad({ ...input, dead: wide?.branch }),
  }),
  "b_dec has the live error alone": (real) => ({
    paramGrad: ({ wide, ...input }) =>
      real.paramGrad({ ...input, wide: wide && { ...wide, sums: real.alloc("f64", wide.sums.shape) } }),
  }),
  "the wide selection is among the dead": (real) => ({
    encode: (p, x, t, selections, age) =>
      real.encode(
        p,
        x,
        t,
        selections.map((each) => (each.among === "wide" ? { ...each, among: "dead" } : each)),
        age,
      ),
  }),
  "the wide error is of the residual": (real) => ({
    residual: (p, target, t, branch, live) =>
      real.residual(p, target, t, branch, live ?? (branch.codes.capacity > 5 ? branch : undefined)),
  }),
};

describe("multi-TopK", () => {
  it.each(Object.entries(FAULTS))("finds: %s", async (_, change) => {
    let found = 0;
    for (const { run } of WIDE_CASES) {
      try {
        await run(otherwise(change), createReferenceEngine());
      } catch {
        found++;
      }
    }
    expect(found).toBeGreaterThan(0);
  });

  it("finds nothing in the reference engine", async () => {
    for (const { run } of WIDE_CASES)
      expect(await run(createReferenceEngine(), createReferenceEngine())).toEqual({ worst: 0 });
  });
});
