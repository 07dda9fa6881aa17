/**
 * Which program a folder's autoencoder is of, by what the folder holds and not by the names of
 * folders.
 */

import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import type { TorchPart } from "../../src/formats/torch-write.ts";
import { importSae } from "../../src/inference/exchange.ts";
import { loadSae } from "../../src/inference/sae.ts";
import { namesSae } from "../../src/inference/weights.ts";
import { inspect } from "../../src/inspect/inspect.ts";
import { bytesOf, float32Of } from "../../src/util/bytes.ts";
import { answer, changedTorch, d, differences, expected, FIXTURES, k, n } from "./fixtures.ts";

let folder: string;
let engine: Engine;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-folders-"));
  engine = createReferenceEngine();
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

async function copied(fixture: string, as: string): Promise<string> {
  const path = join(folder, as);
  await cp(join(FIXTURES, fixture), path, { recursive: true });
  return path;
}

async function offOf(path: string, fixture: string, told = {}): Promise<number> {
  await using sae = await loadSae(path, { engine, ...told });
  const off = differences(await answer(sae), expected(fixture));
  return Math.max(off.latents, off.output);
}

const refused = (path: string, words: string | RegExp) => expect(loadSae(path, { engine })).rejects.toThrow(words);

describe("a folder of dictionary_learning", () => {
  it("is one though it holds a folder checkpoints, whose files find its config.json", async () => {
    const path = await copied("dictionary_learning", "sweep/trainer_0");
    const checkpoints = join(path, "checkpoints");
    await mkdir(checkpoints);
    await cp(join(path, "ae.pt"), join(checkpoints, "ae_488.pt"));
    await copied("dictionary_learning", "sweep/trainer_1");
    for (const each of [path, checkpoints, join(checkpoints, "ae_488.pt")])
      expect(await offOf(each, "dictionary_learning")).toBeLessThan(1e-5);
    expect(await namesSae(path)).toBe(true);
    expect(await inspect(path)).toMatchObject({ kind: "autoencoder of dictionary_learning", facts: { k } });
    // A folder with the name of a step of ours, which holds something else.
    await mkdir(join(checkpoints, "step-00000488"));
    expect(await offOf(path, "dictionary_learning")).toBeLessThan(1e-5);
    const sweep = join(folder, "sweep");
    const words = `${sweep}: holds 2 autoencoders: trainer_0, trainer_1; name one: ${join(sweep, "trainer_0")}`;
    await refused(sweep, words);
    expect(await inspect(sweep)).toMatchObject({ kind: "folder of 2 autoencoders" });
  });

  it("has its k in config.json alone, as until 2024, and is refused where the file says another", async () => {
    const path = await copied("dictionary_learning", "of-2024");
    const ae = join(path, "ae.pt");
    await changedTorch("dictionary_learning/ae.pt", ae, ({ k: _, threshold: __, ...rest }) => rest);
    expect(await offOf(path, "dictionary_learning")).toBeLessThan(1e-5);
    await expect(loadSae(path, { engine, k: 7 })).rejects.toThrow(`the file says that k is ${k}, not 7`);
    await cp(join(FIXTURES, "dictionary_learning", "ae.pt"), ae);
    const config = join(path, "config.json");
    await writeFile(config, (await readFile(config, "utf8")).replace(`"k": ${k}`, '"k": 9'));
    await refused(path, `${ae}: k is ${k}, but ${config} says 9; `);
  });
});

describe("a folder of sparsify", () => {
  it("is a transcoder where the run's config.json says so, as the first versions had it", async () => {
    for (const [i, config] of [{ transcode: true }, { sae: { transcode: true } }].entries()) {
      const root = join(folder, `transcoder-${i}`);
      const path = await copied("sparsify-early-transcoder/layers.3.mlp", `transcoder-${i}/layers.3.mlp`);
      await writeFile(join(root, "config.json"), JSON.stringify({ model: "m", ...config }));
      expect(await offOf(path, "sparsify-early-transcoder")).toBeLessThan(1e-5);
      expect(await inspect(path)).toMatchObject({ facts: { transcoder: true, inputs: d, outputs: d } });
      await refused(root, `${root}: holds an autoencoder: layers.3.mlp; name it: ${path}`);
    }
    const path = await copied("sparsify", "plain/layers.3.mlp");
    await writeFile(
      join(folder, "plain", "config.json"),
      JSON.stringify({ transcode: false, sae: { transcode: false } }),
    );
    expect(await offOf(path, "sparsify")).toBeLessThan(1e-5);
  });

  it("is found by the repository's list of hook points", async () => {
    const root = join(folder, "hub");
    const nine = await copied("sparsify-bfloat16", "hub/layers.9");
    const ten = await copied("sparsify-bfloat16", "hub/layers.10");
    const cfg = { expansion_factor: 10, normalize_decoder: true, num_latents: 0, k, d_in: 4 };
    await writeFile(join(root, "config.json"), JSON.stringify({ sae: cfg, model: "m" }));
    await refused(root, `${root}: holds 2 autoencoders: layers.9, layers.10; name one: ${nine}`);
    expect(await offOf(ten, "sparsify-bfloat16")).toBeLessThan(1e-5);
    const one = join(folder, "hub-of-one");
    await copied("saelens", "hub-of-one/model/layer_3");
    await refused(one, `${one}: holds an autoencoder: model/layer_3; name it: ${join(one, "model/layer_3")}`);
  });
});

describe("Qwen-Scope", () => {
  /**
   * The autoencoder of the fixture, in its words: the same latents once the product with b_dec is
   * in the bias.
   */
  async function written(path: string): Promise<void> {
    await mkdir(path);
    const numbers = async (part: unknown) => float32Of(await (part as TorchPart).bytes());
    const bias = new Float32Array(n);
    const read = async (items: Record<string, unknown>) => {
      const [encoder, latentBias, preBias] = [
        await numbers(items["encoder.weight"]),
        await numbers(items["encoder.bias"]),
        await numbers(items.b_dec),
      ];
      for (let j = 0; j < n; j++)
        bias[j] = latentBias[j]! - preBias.reduce((sum, value, i) => sum + value * encoder[j * d + i]!, 0);
      return bytesOf(bias);
    };
    await changedTorch("dictionary_learning/ae.pt", join(path, "layer0.sae.pt"), (items) => ({
      W_enc: items["encoder.weight"]!,
      W_dec: items["decoder.weight"]!,
      b_enc: { dtype: "f32", shape: [n], bytes: () => read(items) },
      b_dec: items.b_dec!,
    }));
  }

  it("is read with the k of the repository's name, or the user's", async () => {
    const path = join(folder, `SAE-Res-Qwen3-8B-Base-W64K-L0_${k}`);
    await written(path);
    for (const each of [path, join(path, "layer0.sae.pt")])
      expect(await offOf(each, "dictionary_learning")).toBeLessThan(1e-5);
    const { verified, notes, format } = await importSae(path, { out: join(folder, "qwen-imported"), verify: true });
    expect({ format, rows: verified?.rows }).toEqual({ format: "qwen_scope", rows: 64 });
    expect(notes.join()).toContain(`k is ${k}, from the folder's name`);
    expect(await offOf(join(folder, "qwen-imported"), "dictionary_learning")).toBeLessThan(1e-5);
    const elsewhere = join(folder, "qwen");
    await written(elsewhere);
    expect(await offOf(elsewhere, "dictionary_learning", { k })).toBeLessThan(1e-5);
    await refused(elsewhere, "the file does not say how many latents are active per row; say it");
  });

  it("is an autoencoder to every command, whatever its one torch file is called, and needs a name among several", async () => {
    const path = join(folder, `alone-L0_${k}`);
    await written(path);
    const file = join(path, "layer0.sae.pt");
    for (const each of [path, file]) {
      expect(await inspect(each)).toMatchObject({
        kind: "autoencoder of qwen_scope",
        facts: { inputs: d, latents: n },
      });
      expect(await namesSae(each)).toBe(true);
    }
    await cp(file, join(path, "layer1.sae.pt"));
    const which = "has 2 torch files (layer0.sae.pt, layer1.sae.pt); name one of them";
    await refused(path, which);
    await expect(inspect(path)).rejects.toThrow(which);
    expect(await namesSae(path)).toBe(true);
    // A torch file of something else stays what it was.
    const rows = join(folder, "torch-rows");
    await mkdir(rows);
    await changedTorch("dictionary_learning/ae.pt", join(rows, "rows.pt"), (items) => ({
      activations: items["encoder.weight"]!,
    }));
    for (const each of [rows, join(rows, "rows.pt")]) {
      expect(await namesSae(each)).toBe(false);
      expect((await inspect(each)).kind).not.toMatch(/autoencoder/);
    }
  });
});
