/**
 * Published autoencoders as PyTorch wrote them: each gives the latents and reconstructions of its
 * own format's rules, on two engines, read, imported and exported.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createCpuEngine } from "../../src/engine/cpu/index.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { exportSae, importSae } from "../../src/inference/exchange.ts";
import { loadSae } from "../../src/inference/sae.ts";
import { inspect } from "../../src/inspect/inspect.ts";
import { answer, d, differences, expected, FIXTURES, n, PUBLISHED } from "./fixtures.ts";
import { bitsAt } from "./stored.ts";

let folder: string;
let engine: Engine;
let f32: Engine;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-published-"));
  engine = createReferenceEngine();
  f32 = await createCpuEngine();
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await f32[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

const isTranscoder = (name: string) => /transcoder|affine/.test(name);
let made = 0;
const fresh = () => join(folder, `out-${made++}`);

async function offOf(path: string, fixture: string, on: Engine): Promise<number> {
  await using sae = await loadSae(path, { engine: on });
  const off = differences(await answer(sae), expected(fixture));
  return Math.max(off.latents, off.output);
}

describe("a published autoencoder", () => {
  it.each(PUBLISHED)("%s gives what its rules give, read and imported", async (name, format, path) => {
    const at = join(FIXTURES, path);
    expect(await offOf(at, name, engine)).toBeLessThan(1e-5);
    expect(await offOf(at, name, f32)).toBeLessThan(1e-5);
    const out = fresh();
    const { verified, format: found } = await importSae(at, { out, verify: true });
    expect(found).toBe(format);
    expect(verified!.active).toBeGreaterThan(64);
    expect(await offOf(out, name, engine)).toBeLessThan(1e-5);
    expect(await bitsAt(out)).toEqual(await bitsAt(at));
  });

  it.each(PUBLISHED)("%s is inspected", async (name, format, path) => {
    const { kind, facts } = await inspect(join(FIXTURES, path));
    expect(kind).toBe(`autoencoder of ${format}`);
    expect(facts).toMatchObject({ inputs: d, latents: n, ...(isTranscoder(name) ? { transcoder: true } : {}) });
  });

  it.each(PUBLISHED)("%s is written for SAELens with the same answers", async (name, _, path) => {
    const out = fresh();
    await exportSae(join(FIXTURES, path), { format: "saelens", out, verify: true });
    expect(await offOf(out, name, engine)).toBeLessThan(1e-5);
  });
});
