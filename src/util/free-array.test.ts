import { expect, it } from "vitest";
import { freeArray } from "./free-array.ts";

it("gives memory back without a collection", async () => {
  const before = process.memoryUsage().arrayBuffers;
  for (let i = 0; i < 50; i++) {
    const array = new Float32Array(2 ** 22).fill(1);
    freeArray(array);
    expect(array.length).toBe(0);
    await new Promise((resolve) => setImmediate(resolve));
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 * 2 ** 24);
  }
});
