/**
 * Autoencoders in which thresholds decide which latents are active: what PyTorch wrote by the rules
 * of SAELens and dictionary_learning, what Saetta writes for them, and what is refused.
 */

import { execFile } from "node:child_process";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fromRows } from "../../src/data/rows-source.ts";
import { createCpuEngine } from "../../src/engine/cpu/index.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import type { TorchDict } from "../../src/formats/torch-write.ts";
import { type ExportOptions, exportSae, importSae } from "../../src/inference/exchange.ts";
import { loadSae } from "../../src/inference/sae.ts";
import { compare } from "../../src/inference/verify.ts";
import { inspect } from "../../src/inspect/inspect.ts";
import { formatNamed } from "../../src/interchange/index.ts";
import { evaluate } from "../../src/metrics/evaluate.ts";
import type { ArchitectureSpec } from "../../src/sae/architectures/index.ts";
import type { SaeDescription } from "../../src/sae/description.ts";
import { autoencoderDims } from "../../src/sae/dims.ts";
import { train } from "../../src/train/train.ts";
import { bytesOf } from "../../src/util/bytes.ts";
import { SaettaError } from "../../src/util/errors.ts";
import { PYTHON, python } from "../support/python.ts";
import {
  answer,
  changedTorch,
  d,
  differences,
  expected,
  FIXTURES,
  k,
  n,
  ROWS,
  ROWS_FILE,
  THRESHOLDS,
  type TorchItems,
} from "./fixtures.ts";
import { bitsAt, stored } from "./stored.ts";

const torch = await python("torch");

let folder: string;
let engine: Engine;
let f32: Engine;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-thresholds-"));
  engine = createReferenceEngine();
  f32 = await createCpuEngine();
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await f32[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

let made = 0;
const fresh = () => join(folder, `out-${made++}`);

async function offOf(path: string, fixture: string, at = FIXTURES): Promise<number> {
  await using sae = await loadSae(path, { engine });
  const off = differences(await answer(sae), expected(fixture, at));
  return Math.max(off.latents, off.output);
}

describe("an autoencoder with thresholds that PyTorch wrote", () => {
  it.each(
    THRESHOLDS,
  )("%s gives the latents and reconstructions of its own rules, read and imported", async (name, spec) => {
    const path = join(FIXTURES, name);
    expect(await offOf(path, name)).toBeLessThan(1e-5);
    const out = fresh();
    const { verified, description } = await importSae(path, { out, verify: true });
    expect(description.spec).toEqual(spec);
    expect(verified).toMatchObject({ rows: 64 });
    expect(verified!.active).toBeGreaterThan(64);
    expect(await offOf(out, name)).toBeLessThan(1e-5);
    expect(await bitsAt(out)).toEqual(await bitsAt(path));
  });

  it("has as many latents per row as are above their thresholds", () => {
    const counts = THRESHOLDS.map(([name]) => expected(name).latents.filter((value) => value > 0).length / 16);
    for (const count of counts) expect(count).not.toBe(k);
  });

  it("is inspected, evaluated and told apart from TopK", async () => {
    expect(await inspect(join(FIXTURES, "saelens-jumprelu"))).toMatchObject({
      kind: "autoencoder of saelens",
      facts: { activation: "jumprelu", inputs: d, latents: n },
    });
    expect(await inspect(join(FIXTURES, "dictionary_learning-matryoshka"))).toMatchObject({
      facts: { activation: "matryoshka", k },
    });
    const notes = async (name: string) => {
      await using sae = await loadSae(join(FIXTURES, name), { engine });
      return sae.found.notes;
    };
    expect(await notes("saelens-jumprelu")).toEqual([]);
    expect(await notes("saelens-relu")).toEqual(["the activation is ReLU: a threshold of 0 for every latent"]);
    expect(await notes("dictionary_learning-jumprelu")).toEqual([
      "b_dec is not taken from the input: the encoder's product with it is in the latents' bias",
    ]);
  });

  it("needs its config.json only where names do not tell", async () => {
    for (const name of ["dictionary_learning-matryoshka", "dictionary_learning-jumprelu"]) {
      const path = fresh();
      await cp(join(FIXTURES, name), path, { recursive: true });
      await rm(join(path, "config.json"));
      expect(await offOf(path, name)).toBeLessThan(1e-5);
      expect(await offOf(join(path, "ae.pt"), name)).toBeLessThan(1e-5);
    }
  });

  it.each(THRESHOLDS)("%s has the L0 and FVU in eval that its latents have", async (name) => {
    const rows = ROWS.length / d;
    const { latents, output } = expected(name);
    await using sae = await loadSae(join(FIXTURES, name), { engine });
    const chunk = { raw: bytesOf(ROWS), rows, numbers: Float64Array.from({ length: rows }, (_, row) => row) };
    const refuse = (row: number) => new SaettaError(`row ${row} is not finite`);
    const found = await evaluate(
      sae,
      "f32",
      (async function* () {
        yield { ...chunk, refuse };
      })(),
    );
    const column = (i: number) => Array.from({ length: rows }, (_, row) => ROWS[row * d + i]!);
    const spread = Array.from({ length: d }, (_, i) => {
      const mean = column(i).reduce((a, b) => a + b, 0) / rows;
      return column(i).reduce((sum, value) => sum + (value - mean) ** 2, 0);
    }).reduce((a, b) => a + b, 0);
    const error = output.reduce((sum, value, i) => sum + (value - ROWS[i]!) ** 2, 0);
    expect(found.l0).toBe(latents.filter((value) => value > 0).length / rows);
    expect(found.fvu! / (error / spread)).toBeCloseTo(1, 5);
  });

  it.each(THRESHOLDS)("%s is what a run can start from", async (name, spec) => {
    const rows = fromRows(() => [ROWS], { dIn: d, rows: ROWS.length / d });
    const options = { engine: "reference", batch: 8, epochs: 1, lr: 1e-12, holdout: 0, out: false } as const;
    const init = join(FIXTURES, name);
    // The threshold of BatchTopK stays what the file says.
    const kept = "k" in spec ? { thresholdStart: 1000 } : {};
    await using run = await train(rows, { ...options, init, ...kept });
    const { sae } = await run.finished;
    expect(sae.description.spec.architecture).toBe((spec as ArchitectureSpec).architecture);
    if ("prefixes" in spec) expect(sae.description.spec).toMatchObject({ ...spec, auxk: n });
    // Training brings decoder rows to norm 1, which changes reconstructions of rows of other norms.
    expect(differences(await answer(sae), expected(name)).latents).toBeLessThan(1e-5);
  });
});

/** A copy of a fixture with its ae.pt or cfg.json changed. */
async function broken(fixture: string, change: (items: TorchItems) => TorchDict): Promise<string> {
  const path = fresh();
  await cp(join(FIXTURES, fixture), path, { recursive: true });
  await changedTorch(`${fixture}/ae.pt`, join(path, "ae.pt"), change);
  return path;
}

const tensor = (values: Float32Array | BigInt64Array, shape: readonly number[]) => ({
  dtype: values instanceof Float32Array ? ("f32" as const) : ("i64" as const),
  shape,
  bytes: async () => new Uint8Array(values.buffer),
});

describe("what is not whole, or does not say which latents are active, is refused in a line", () => {
  it.each([
    [
      "dictionary_learning-batchtopk",
      { threshold: tensor(Float32Array.of(-1), []) },
      /ae\.pt: threshold is -1: it was never set, so it does not say which latents are active; train it past threshold_start_step$/,
    ],
    [
      "dictionary_learning-matryoshka",
      { threshold: tensor(Float32Array.of(-1), [1]) },
      /threshold is -1: it was never/,
    ],
    [
      "dictionary_learning-batchtopk",
      { threshold: tensor(Float32Array.of(0), []) },
      /threshold is 0: it was never set/,
    ],
    [
      "dictionary_learning-batchtopk",
      { threshold: tensor(Float32Array.of(1, 2), [2]) },
      /tensor "threshold" is \[2\], but the class says \[1\]/,
    ],
    [
      "dictionary_learning-batchtopk",
      { threshold: tensor(Float32Array.of(Number.NaN), []) },
      /element 0 is not finite/,
    ],
    ["dictionary_learning-batchtopk", { threshold: 3 }, /"threshold" is no tensor/],
    [
      "dictionary_learning-matryoshka",
      { group_sizes: tensor(BigInt64Array.of(8n, 12n, 21n), [3]) },
      /group_sizes must be above 0 and sum to the 40 latents/,
    ],
    [
      "dictionary_learning-matryoshka",
      { group_sizes: tensor(BigInt64Array.of(-8n, 48n), [2]) },
      /group_sizes must be above 0/,
    ],
    ["dictionary_learning-matryoshka", { group_sizes: 40 }, /"group_sizes" is no tensor of whole numbers/],
    [
      "dictionary_learning-matryoshka",
      { k: tensor(BigInt64Array.of(4n, 4n), [2]) },
      /tensor "k" is not one whole number/,
    ],
    [
      "dictionary_learning-jumprelu",
      { threshold: tensor(new Float32Array(n + 1), [n + 1]) },
      /tensor "threshold" is \[41\], but W_enc says \[40\]/,
    ],
    [
      "dictionary_learning-jumprelu",
      { W_dec: tensor(new Float32Array(n * d), [d, n]) },
      /tensor "W_dec" is \[12, 40\], but/,
    ],
  ] as [string, Record<string, TorchDict[string]>, RegExp][])("%s: %j", async (fixture, change, message) => {
    const path = await broken(fixture, (items) => ({ ...items, ...change }));
    const error = await loadSae(path, { engine }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(SaettaError);
    expect(String(error)).toMatch(message);
    await expect(importSae(path, { out: join(folder, "never") })).rejects.toThrow(message);
  });

  it.each([
    [
      "saelens-jumprelu",
      { architecture: "topk", k },
      /has a tensor "threshold", which the architecture "topk" has not/,
    ],
    ["saelens", { architecture: "jumprelu" }, /has no tensor "threshold"/],
    ["saelens-relu", { activation_fn: "tanh-relu" }, /activation "tanh-relu" is not computed by Saetta/],
    ["saelens-relu", { architecture: "temporal" }, /architecture "temporal" is not computed by Saetta/],
    ["saelens-relu", { architecture: "gated" }, /sae_weights\.safetensors: has no tensor "b_gate"/],
    ["saelens-relu", { architecture: "__proto__" }, /architecture "__proto__" is not computed by Saetta/],
  ])("%s as %j", async (fixture, cfg, message) => {
    const path = fresh();
    await cp(join(FIXTURES, fixture), path, { recursive: true });
    const file = join(path, "cfg.json");
    const old = JSON.parse(await readFile(file, "utf8")) as object;
    await writeFile(file, JSON.stringify({ ...old, ...cfg }));
    await expect(loadSae(path, { engine })).rejects.toThrow(message);
  });

  it("a k for a file that has none", async () => {
    for (const name of ["saelens-jumprelu", "dictionary_learning-jumprelu"]) {
      await expect(loadSae(join(FIXTURES, name), { engine, k: 3 })).rejects.toThrow(
        "a threshold decides which latents are active, so there is no k to set to 3; leave out --k",
      );
    }
  });

  it("a class of dictionary_learning with the arrays of another", async () => {
    const path = fresh();
    await cp(join(FIXTURES, "dictionary_learning-jumprelu"), path, { recursive: true });
    await cp(join(FIXTURES, "dictionary_learning-batchtopk/config.json"), join(path, "config.json"));
    await expect(loadSae(path, { engine })).rejects.toThrow('has no tensor "encoder.weight"');
  });
});

const SPECS: { readonly [N in "batchtopk" | "matryoshka" | "nested" | "jumprelu"]: ArchitectureSpec } = {
  batchtopk: { architecture: "batchtopk", k: 4, auxk: 3 },
  matryoshka: {
    ...{
      architecture: "matryoshka",
      k: 4.5,
      auxk: 3,
      prefixes: [10, 40],
      weights: [0.25, 0.75],
      selection: "batchtopk",
    },
  },
  nested: { architecture: "matryoshka", k: 4, auxk: 3, prefixes: [10, 40], weights: [0.5, 0.5], selection: "topk" },
  jumprelu: { architecture: "jumprelu", targetL0: 5 },
};

function description(name: keyof typeof SPECS, layerNorm = false): SaeDescription {
  const provenance = { version: "0.1.0", engine: "cpu", model: "gpt2", tensor: "/h.6/Add" };
  const normalization = layerNorm
    ? ({ normalization: "layer_norm", undoneWith: "std" } as const)
    : ({ normalization: "none" } as const);
  return { dims: autoencoderDims(d, n), spec: SPECS[name], saetta: { ...provenance, ...normalization } };
}

/** Where each can be written, with what is said of it, and what it is when it is read again. */
const WRITTEN: readonly (readonly [keyof typeof SPECS, ExportOptions["format"], object, readonly RegExp[]])[] = [
  ["batchtopk", "saelens", { architecture: "jumprelu" }, [/^SAELens has no place for .* used: k \(4 per row\)$/]],
  [
    "matryoshka",
    "saelens",
    { architecture: "jumprelu" },
    [/no place for what training used: k \(4\.5 per row\) and the prefixes \(10, 40\)$/],
  ],
  ["nested", "saelens", { architecture: "topk", k: 4 }, [/training used: the prefixes \(10, 40\)$/]],
  ["nested", "sparsify", { architecture: "topk", k: 4 }, [/^sparsify has no place for .*: the prefixes \(10, 40\)$/]],
  ["nested", "dictionary_learning", { architecture: "topk", k: 4 }, [/the prefixes \(10, 40\)$/]],
  ["jumprelu", "saelens", { architecture: "jumprelu" }, [/training used: the target L0 \(5\)$/]],
  ["batchtopk", "dictionary_learning", { architecture: "batchtopk", k: 4 }, []],
  [
    "matryoshka",
    "dictionary_learning",
    { architecture: "matryoshka", prefixes: [10, 40], weights: [0.25, 0.75] },
    [/whole numbers for k: 5 is written for 4\.5/],
  ],
  ["jumprelu", "dictionary_learning", { architecture: "jumprelu" }, [/^b_dec is not taken/, /the target L0 \(5\)$/]],
];

describe("out and in again", () => {
  it.each(WRITTEN)("%s through %s: no bit of f32 weights changes", async (name, format, spec, notes) => {
    const run = await stored(f32, description(name));
    const out = fresh();
    const exported = await exportSae(run, { format, out, verify: true });
    expect(exported.verified).toMatchObject({ rows: 64 });
    expect(exported.notes).toEqual(notes.map((note) => expect.stringMatching(note)));
    const back = fresh();
    const imported = await importSae(out, { out: back, verify: true });
    expect(imported.description.spec).toMatchObject(spec);
    expect(imported.description.saetta).toMatchObject({ model: "gpt2", tensor: "/h.6/Add" });
    const { cut, sparsity: _, latentBias, ...bits } = await bitsAt(run);
    const again = await bitsAt(back);
    expect(again).toMatchObject(bits);
    // One threshold for all becomes one per latent where a file has those.
    if (cut !== undefined && again.cut === undefined) expect(again.threshold).toBe(cut.repeat(n));
    else expect(again.cut).toBe(cut);
    // The product with b_dec was rounded twice there.
    if (name !== "jumprelu" || format === "saelens") expect(again.latentBias).toBe(latentBias);
    const twice = fresh();
    await exportSae(back, { format, out: twice });
    expect(await bitsAt(twice)).toEqual(again);
  });

  it("f64 stays f64, and layer_norm goes along with thresholds", async () => {
    const run = await stored(engine, description("batchtopk", true));
    const out = fresh();
    expect((await exportSae(run, { format: "saelens", out, verify: true })).verified).toMatchObject({ rows: 64 });
    const { encoder, threshold } = await bitsAt(out);
    const bits = await bitsAt(run);
    expect(encoder).toBe(bits.encoder);
    expect(threshold).toBe(bits.cut!.repeat(n));
  });

  it("a threshold that was never set is refused by every format and every reader", async () => {
    for (const name of ["batchtopk", "matryoshka"] as const) {
      const run = await stored(f32, description(name), { cut: 0 });
      for (const format of ["saelens", "dictionary_learning"] as const) {
        const out = fresh();
        await expect(exportSae(run, { format, out })).rejects.toThrow(
          `${run}: its threshold was never set, so it does not say which latents are active; train it past --threshold-start`,
        );
        await expect(readdir(out)).rejects.toThrow("ENOENT");
      }
      await expect(loadSae(run, { engine })).rejects.toThrow("its threshold was never set");
    }
  });

  it("thresholds are refused where a format has none", async () => {
    for (const name of ["batchtopk", "matryoshka", "jumprelu"] as const) {
      const run = await stored(f32, description(name));
      for (const format of ["sparsify", "openai"] as const) {
        await expect(exportSae(run, { format, out: fresh(), bare: format === "openai" })).rejects.toThrow(
          `a threshold decides which latents are active, which ${format} has no word for; use --format saelens`,
        );
      }
    }
  });

  it("decoder rows of any norm are written for dictionary_learning as they are", async () => {
    const out = fresh();
    const long = join(FIXTURES, "saelens-jumprelu-no-subtraction");
    await exportSae(long, { format: "dictionary_learning", out, verify: true });
    expect(await offOf(out, "saelens-jumprelu-no-subtraction")).toBeLessThan(1e-5);
  });
});

describe("--verify", () => {
  it("sees a threshold that differs, and passes over a value that is at it", async () => {
    const run = await stored(engine, description("jumprelu"));
    const out = fresh();
    await exportSae(run, { format: "saelens", out, verify: true });
    const place = { folder: out, names: new Set(["cfg.json", "sae_weights.safetensors"]), file: undefined };
    const right = await formatNamed("saelens").rules(place, {});
    await using sae = await loadSae(run, { engine });
    expect((await compare(right, sae, ROWS, out)).ties).toBe(0);
    const row = Float64Array.from(ROWS.subarray(0, d));
    const { latents } = right.run(row);
    const j = latents.findIndex((value) => value > 0);
    const off = (by: number) => {
      const at = latents[j]! + by;
      const selects = { kind: "threshold", of: (i: number) => (i === j ? at : 0) } as const;
      const without = (x: Float64Array) => {
        const found = right.run(x);
        return { ...found, latents: found.latents.map((value, i) => (i === j && value <= at ? 0 : value)) };
      };
      return { selects, run: without };
    };
    const first = ROWS.subarray(0, d);
    expect((await compare(off(1e-9), sae, first, out)).ties).toBe(1);
    await expect(compare(off(1e-2), sae, first, out)).rejects.toThrow("does not say the same");
  });
});

describe.skipIf(torch !== undefined)(
  `plain PyTorch by each format's rules${torch === undefined ? "" : ` (${torch})`}`,
  () => {
    it("gives the same latents and reconstructions for what Saetta writes", async () => {
      const jobs: { readonly form: string; readonly path: string; readonly name: string; readonly run: string }[] = [];
      for (const [name, format] of WRITTEN) {
        const [run, out] = [await stored(f32, description(name)), fresh()];
        await exportSae(run, { format, out });
        jobs.push({ form: format, path: out, name: `${format}-${name}`, run });
      }
      const list = join(folder, "jobs.json");
      const lines = jobs.map(({ name, ...job }) => ({ ...job, rows: ROWS_FILE, d, out: join(folder, name) }));
      await writeFile(list, JSON.stringify(lines));
      await promisify(execFile)(PYTHON, [fileURLToPath(new URL("rules.py", import.meta.url)), list]);
      for (const { name, run } of jobs) expect(await offOf(run, name, folder), name).toBeLessThan(1e-5);
    });
  },
);
