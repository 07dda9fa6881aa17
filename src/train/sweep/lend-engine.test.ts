import { expect, it } from "vitest";
import { createReferenceEngine } from "../../engine/reference.ts";
import { bytesOf, float64Of } from "../../util/bytes.ts";
import { lendEngine } from "./lend-engine.ts";

it("computes on the engine, and gives back only what was allocated through the loan", async () => {
  const engine = createReferenceEngine();
  const [one, other] = [lendEngine(engine), lendEngine(engine)];
  const [kept, gone] = [one.alloc("f64", [2]), other.alloc("f64", [2])];
  const codes = other.codes(2, 3);
  expect([one.name, one.real, one.description]).toEqual([engine.name, engine.real, engine.description]);
  one.write(kept, bytesOf(Float64Array.of(1, 2)));
  await other.close();
  await other.close();
  expect(float64Of(await engine.read(kept))).toEqual(Float64Array.of(1, 2));
  // The reference engine keeps nothing of what was freed.
  for (const tensor of [gone, engine.pairs(codes).value]) expect(await engine.read(tensor)).toHaveLength(0);
  one.free(kept);
  await one.close();
  expect(float64Of(await engine.read(engine.alloc("f64", [1])))).toEqual(Float64Array.of(0));
  await engine.close();
});
