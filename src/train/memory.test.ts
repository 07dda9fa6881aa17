import { freemem } from "node:os";
import { describe, expect, it } from "vitest";
import { dimsOf, selectionsOf } from "../../test/topk.ts";
import { transcoderDims } from "../sae/dims.ts";
import { CORE_PARAMS } from "../sae/params.ts";
import { availableMemory, bytesNeeded, checkMemory, type Needs } from "./memory.ts";

const needs: Needs = {
  dims: dimsOf({ d: 768, n: 32768 }),
  params: CORE_PARAMS,
  selections: selectionsOf({ k: 32, auxk: 256 }),
  real: "f32",
  ema: false,
  batch: 4096,
  rowBytes: 2 ** 28,
  sampled: 0,
};
const parameters = 2 * 768 * 32768 + 32768 + 768;

describe("the memory that a run needs", () => {
  it("is parameters, moments and average, a batch, and rows read ahead", () => {
    const { weights, batch, rows, total } = bytesNeeded(needs);
    expect(weights).toBe(parameters * 4 * 3);
    expect(bytesNeeded({ ...needs, ema: true }).weights).toBe(parameters * 4 * 4);
    expect(bytesNeeded({ ...needs, real: "f64" }).weights).toBe(parameters * 8 * 3);
    expect(batch).toBeGreaterThan(4096 * 768 * 4 * 3);
    const counts = 40 * 32768;
    expect(bytesNeeded({ ...needs, batch: 8192 }).batch - counts).toBe(2 * (batch - counts));
    expect(bytesNeeded({ ...needs, selections: selectionsOf({ k: 32, auxk: 0 }) }).batch).toBeLessThan(batch);
    expect(total).toBeGreaterThan(weights + batch + rows + 64 * 2 ** 20);
    expect(total).toBeLessThan(weights + batch + rows + 256 * 2 ** 20);
  });

  it("is what the start holds, or what training holds later, whichever is more", () => {
    const tensor = 768 * 32768 * 4;
    expect(bytesNeeded({ ...needs, rowBytes: 2 ** 32 }).rows).toBe(2 ** 32 + tensor);
    // The parameters twice, and the sample.
    expect(bytesNeeded({ ...needs, rowBytes: 0 }).rows).toBe(2 * 4 * parameters);
    expect(bytesNeeded({ ...needs, rowBytes: 0, sampled: 1000 * 768 }).rows).toBe(2 * 4 * parameters + 4 * 768 * 1000);
  });

  it("of a transcoder has its targets and errors of their width", () => {
    const wide = { ...needs, dims: transcoderDims(768, 32768, 1024) };
    expect(bytesNeeded(wide).batch - bytesNeeded(needs).batch).toBe(4096 * 4 * (1024 + 2 * (1024 - 768)));
    expect(bytesNeeded({ ...wide, rowBytes: 2 ** 32 }).rows).toBe(2 ** 32 + 1024 * 32768 * 4);
    expect(bytesNeeded(wide).weights).toBe((parameters + 256 * 32768 + 256) * 4 * 3);
  });

  it("is refused with the numbers when there is less", () => {
    const { total } = bytesNeeded(needs);
    expect(checkMemory(needs, total)).toBe(total);
    expect(() => checkMemory(needs, total - 1)).toThrow(
      /^the run needs 1\.\d GiB of memory and 1\.\d GiB are free: 576\.\d MiB for 32768 latents x 768 inputs with their moments, \d+\.\d MiB for a batch of 4096 rows, 3\d\d\.\d MiB for rows read ahead and work; lower --latents$/,
    );
    expect(() => checkMemory({ ...needs, batch: 1e6 }, total)).toThrow(/lower --batch$/);
  });

  it("is compared with what the machine has", () => {
    expect(availableMemory()).toBeGreaterThan(0);
    expect(availableMemory()).toBeLessThanOrEqual(freemem() * 1.5);
  });
});
