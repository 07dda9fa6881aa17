import { execFile } from "node:child_process";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { saveCheckpoint } from "../../src/checkpoint/save.ts";
import { createCpuEngine } from "../../src/engine/cpu/index.ts";
import { COUNTERS, type Engine, type Params, type State } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { type ExportOptions, exportSae, importSae } from "../../src/inference/exchange.ts";
import { loadSae } from "../../src/inference/sae.ts";
import { compare } from "../../src/inference/verify.ts";
import { findSae, readParam } from "../../src/inference/weights.ts";
import type { FormatName } from "../../src/interchange/format.ts";
import { formatNamed } from "../../src/interchange/index.ts";
import type { Normalization } from "../../src/sae/math.ts";
import { CORE_PARAMS, type CoreParam } from "../../src/sae/params.ts";
import { bytesOf } from "../../src/util/bytes.ts";
import { Rng } from "../../src/util/rng.ts";
import { PYTHON, python } from "../support/python.ts";
import { described, paramShapes } from "../topk.ts";
import { answer, d, differences, expected, FIXTURES, k, n, ROWS, ROWS_FILE } from "./fixtures.ts";

const torch = await python("torch");
const shape = { d, n, k, auxk: 3 };

let folder: string;
let engine: Engine;
let f32: Engine;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-export-"));
  engine = createReferenceEngine();
  f32 = await createCpuEngine();
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await f32[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

/** Weights drawn from a seed, with unit decoder rows. */
function drawn(seed: number): { readonly [K in keyof Params]: Float64Array } {
  const rng = new Rng(seed);
  const normal = (count: number, scale: number) => Float64Array.from({ length: count }, () => scale * rng.normal());
  const decoder = normal(n * d, 1);
  for (let j = 0; j < n; j++) {
    const row = decoder.subarray(j * d, (j + 1) * d);
    const norm = Math.sqrt(row.reduce((sum, value) => sum + value * value, 0));
    for (let i = 0; i < d; i++) row[i]! /= norm;
  }
  return { encoder: normal(n * d, 0.3), latentBias: normal(n, 0.1), decoder, preBias: normal(d, 1) };
}

/**
 * A checkpoint of the engine's kind of numbers; with `ema` the running average holds other weights.
 */
async function checkpoint(on: Engine, kind: Normalization["kind"], ema = false): Promise<string> {
  const shapes = paramShapes(shape);
  const params = (seed: number | undefined, scale = 1): Params => {
    const tensor = (name: CoreParam) => {
      const t = on.alloc(on.real, shapes[name]);
      if (seed === undefined) return t;
      const values = drawn(seed)[name].map((value) => value * scale);
      on.write(t, bytesOf(on.real === "f64" ? values : Float32Array.from(values)));
      return t;
    };
    return {
      encoder: tensor("encoder"),
      latentBias: tensor("latentBias"),
      decoder: tensor("decoder"),
      preBias: tensor("preBias"),
    };
  };
  const counters = on.alloc("f64", [COUNTERS.length]);
  on.write(counters, bytesOf(Float64Array.from(COUNTERS, () => 10)));
  const average = ema ? { ema: params(2, 1 - 0.9 ** 10) } : {};
  const state: State = {
    params: params(1),
    m: params(undefined),
    v: params(undefined),
    ...average,
    age: on.alloc("u32", [n]),
    counters,
  };
  const saetta = {
    version: "0.1.0",
    engine: on.description,
    normalization: kind,
    ...(kind === "scale" ? { normalizationFactor: 3 } : {}),
    ...(ema ? { emaDecay: 0.9 } : {}),
    model: "gpt2",
    tensor: "/h.6/Add",
  };
  const run = await mkdtemp(join(folder, "run-"));
  await saveCheckpoint(run, {
    engine: on,
    state,
    step: 10,
    description: { ...described(shape), saetta },
    progress: {},
  });
  return run;
}

async function weightsOf(path: string, told = {}): Promise<Record<string, string>> {
  const found = await findSae(path, undefined, told);
  const out: Record<string, string> = {};
  for (const name of CORE_PARAMS) out[name] = Buffer.from(bytesOf(await readParam(found, name))).toString("hex");
  return out;
}

let made = 0;
const fresh = () => join(folder, `out-${made++}`);

/** What each format can say, and how. */
const CASES: readonly (readonly [FormatName, Normalization["kind"], Partial<ExportOptions>])[] = [
  ["saelens", "none", {}],
  ["saelens", "scale", {}],
  ["saelens", "layer_norm", { inexact: true }],
  ["sparsify", "none", {}],
  ["sparsify", "scale", {}],
  ["dictionary_learning", "none", {}],
  ["dictionary_learning", "scale", {}],
  ["openai", "layer_norm", { inexact: true }],
  ["openai", "none", { bare: true }],
  ["openai", "scale", { bare: true }],
];

describe("out and in again", () => {
  it.each(CASES)("through %s (%s, %j) no bit of f32 weights changes", async (format, kind, options) => {
    const run = await checkpoint(f32, kind);
    const [out, back] = [fresh(), fresh()];
    const told = options.bare ? { k } : {};
    const exported = await exportSae(run, { format, out, verify: true, ...options });
    expect(exported.verified?.rows).toBe(64);
    const imported = await importSae(out, { out: back, verify: true, ...told });
    expect(imported.format).toBe(format);
    expect(imported.description).toMatchObject({ dims: { dIn: d, n }, spec: { k } });
    const weights = await weightsOf(run);
    expect(await weightsOf(out, told)).toEqual(weights);
    expect(await weightsOf(back)).toEqual(weights);
    // What was undone by others stays so: the way there is exact then.
    const again = fresh();
    if (kind === "layer_norm") await exportSae(back, { format, out: again });
    else await exportSae(back, { format, out: again, ...options });
    expect(await weightsOf(again, told)).toEqual(weights);
    expect((await readdir(folder)).filter((name) => name.includes("aside"))).toEqual([]);
  });

  it("f64 weights stay f64", async () => {
    const run = await checkpoint(engine, "none");
    const weights = await weightsOf(run);
    for (const format of ["saelens", "sparsify", "dictionary_learning"] as const) {
      const out = fresh();
      await exportSae(run, { format, out });
      expect(await weightsOf(out)).toEqual(weights);
    }
  });

  it("names of the model and the hook come along, or are the user's", async () => {
    const run = await checkpoint(f32, "none");
    const [own, others] = [fresh(), fresh()];
    await exportSae(run, { format: "saelens", out: own });
    await exportSae(run, {
      format: "dictionary_learning",
      out: others,
      model: "gpt2-small",
      hook: "blocks.6.hook_resid_post",
    });
    expect((await findSae(own)).description.saetta).toMatchObject({ model: "gpt2", tensor: "/h.6/Add" });
    expect((await findSae(others)).description.saetta).toMatchObject({
      model: "gpt2-small",
      tensor: "blocks.6.hook_resid_post",
    });
  });

  it("a damaged newer checkpoint is passed over, and said to be", async () => {
    const run = await checkpoint(f32, "none");
    const newer = join(run, "checkpoints", "step-00000011");
    await cp(join(run, "checkpoints", "step-00000010"), newer, { recursive: true });
    await writeFile(join(newer, "sae.safetensors"), "");
    const { notes } = await exportSae(run, { format: "saelens", out: fresh() });
    expect(notes).toEqual([
      expect.stringMatching(/^passed over a damaged checkpoint: .*step-00000011.sae\.safetensors: damaged/),
    ]);
  });

  it("the running average is what is written, unless raw weights are asked for", async () => {
    const run = await checkpoint(f32, "none", true);
    const [average, raw] = [fresh(), fresh()];
    expect((await exportSae(run, { format: "sparsify", out: average, verify: true })).weights).toBe("ema");
    expect((await exportSae(run, { format: "sparsify", out: raw, weights: "raw", verify: true })).weights).toBe("raw");
    expect(await weightsOf(average)).toEqual(await weightsOf(run));
    expect(await weightsOf(raw)).toEqual(await weightsOf(await checkpoint(f32, "none")));
    expect(await weightsOf(raw)).not.toEqual(await weightsOf(average));
    expect(JSON.parse(await readFile(join(average, "cfg.json"), "utf8")).saetta.ema_decay).toBeUndefined();
  });
});

describe("what a format cannot say is refused, with the flag that helps", () => {
  it.each([
    [
      "saelens",
      "unit",
      {},
      /SAELens cannot say that each row is brought to norm 1 .*; train with --normalize none or scale/,
    ],
    ["openai", "unit", {}, /OpenAI's loader cannot say that each row is brought to norm 1/],
    ["sparsify", "unit", { inexact: true }, /sparsify cannot say/],
    [
      "sparsify",
      "layer_norm",
      { inexact: true },
      /sparsify cannot say that rows are layer-normalised first; use --format saelens or openai/,
    ],
    ["dictionary_learning", "layer_norm", {}, /dictionary_learning cannot say that rows are layer-normalised first/],
    [
      "saelens",
      "layer_norm",
      {},
      /SAELens undoes layer_norm with the standard deviation .*; accept that with --inexact/,
    ],
    ["openai", "layer_norm", {}, /undoes layer_norm with the standard deviation .*; accept that with --inexact/],
    ["openai", "none", {}, /layer-normalises the rows of every TopK autoencoder, which training did not; use --bare/],
    ["openai", "scale", { inexact: true }, /use --bare to write the state dict as train\.py does/],
    [
      "openai",
      "layer_norm",
      { bare: true },
      /a bare state dict \(--bare\) cannot say how rows are normalised; leave out --bare/,
    ],
  ] as const)("%s, %s, %j", async (format, kind, options, message) => {
    const out = fresh();
    await expect(exportSae(await checkpoint(f32, kind), { format, out, ...options })).rejects.toThrow(message);
    await expect(readdir(out)).rejects.toThrow("ENOENT");
  });

  it("layer_norm without --inexact would have given smaller reconstructions", async () => {
    const run = await checkpoint(f32, "layer_norm");
    const out = fresh();
    await exportSae(run, { format: "openai", out, inexact: true });
    // Rows that hardly vary: 1e-5 is a hundredth of their spread.
    const rows = ROWS.map((value) => 5 + value * 3e-4);
    await using mine = await loadSae(run, { engine });
    await using theirs = await loadSae(out, { engine });
    const [a, b] = [await mine.encode(rows), await theirs.encode(rows)];
    expect([...b.value]).toEqual([...a.value]);
    const [x, y] = [await mine.decode(a), await theirs.decode(b)];
    const off = x.reduce((most, value, i) => Math.max(most, Math.abs(value - y[i]!)), 0);
    expect(off).toBeGreaterThan(1e-6);
    expect(off).toBeLessThan(1e-4);
  });

  it("an --out that is not empty", async () => {
    const run = await checkpoint(f32, "none");
    const out = fresh();
    await exportSae(run, { format: "sparsify", out });
    await expect(exportSae(run, { format: "sparsify", out })).rejects.toThrow(
      `${out}: exists already; choose another --out`,
    );
    await expect(exportSae(run, { format: "sparsify", out: join(out, "cfg.json", "x") })).rejects.toThrow(
      "could not be written",
    );
    await expect(importSae(run, { out: fresh() })).rejects.toThrow("is an autoencoder of Saetta already");
  });
});

describe("--verify", () => {
  it.each([
    "saelens",
    "sparsify",
    "dictionary_learning",
  ] as const)("finds one wrong weight in a file of %s", async (format) => {
    const run = await checkpoint(f32, "none");
    const out = fresh();
    await exportSae(run, { format, out });
    const place = { folder: out, names: new Set(await readdir(out)), file: undefined };
    await using sae = await loadSae(run, { engine });
    const right = await formatNamed(format).rules(place, {});
    await expect(compare(right, sae, ROWS, out)).resolves.toMatchObject({ ties: 0, rows: 16 });
    const wrong = {
      ...right,
      run: (row: Float64Array) => right.run(row.map((value, i) => (i === 0 ? value * 1.001 : value))),
    };
    await expect(compare(wrong, sae, ROWS, out)).rejects.toThrow(
      /does not say the same as what it was made from: latents differ by up to/,
    );
    const off = {
      ...right,
      run: (row: Float64Array) => ({ ...right.run(row), output: right.run(row).output.map((value) => value + 1e-3) }),
    };
    await expect(compare(off, sae, ROWS, out)).rejects.toThrow(/reconstructions by \d/);
    const fewer = { selects: { kind: "topk", k: k - 1 } as const, run: formatRunWith(right, k - 1) };
    await expect(compare(fewer, sae, ROWS, out)).rejects.toThrow("does not say the same");
  });

  it("leaves nothing behind when it fails, and needs latents that are on", async () => {
    const run = await checkpoint(f32, "none");
    const zeros = join(folder, "zeros.npy");
    const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (2, ${d}), }`.padEnd(117, " ");
    await writeFile(
      zeros,
      Buffer.concat([
        Buffer.from("\x93NUMPY\x01\x00v\x00", "latin1"),
        Buffer.from(`${header}\n`),
        Buffer.alloc(8 * d + 100),
      ]).subarray(0, 128 + 8 * d),
    );
    const out = fresh();
    const { verified } = await exportSae(run, { format: "saelens", out, verify: true, data: [zeros] });
    expect(verified?.rows).toBe(2);
    const failing = fresh();
    await expect(
      exportSae(run, { format: "saelens", out: failing, verify: true, data: [join(folder, "none.npy")] }),
    ).rejects.toThrow("no such file");
    expect((await readdir(folder)).filter((name) => name.startsWith(failing.split("/").at(-1)!))).toEqual([]);
  });
});

/** The k-th latent taken away. */
function formatRunWith(
  rules: { run(row: Float64Array): { latents: Float64Array; output: Float64Array } },
  most: number,
) {
  return (row: Float64Array) => {
    const { latents, output } = rules.run(row);
    const kept = [...latents.keys()].sort((a, b) => latents[b]! - latents[a]!).slice(0, most);
    return { latents: latents.map((value, j) => (kept.includes(j) ? value : 0)), output };
  };
}

describe.skipIf(torch !== undefined)(
  `plain PyTorch code that follows each format's rules${torch === undefined ? "" : ` (${torch})`}`,
  () => {
    it("gives the same latents and reconstructions for what Saetta writes", async () => {
      const jobs: { form: string; path: string; name: string; run: string; std: boolean; k?: number }[] = [];
      for (const [format, kind, options] of CASES) {
        const [run, out] = [await checkpoint(f32, kind), fresh()];
        await exportSae(run, { format, out, ...options });
        const name = `${format}-${kind}`;
        jobs.push({
          form: options.bare ? "bare" : format,
          path: out,
          name,
          run,
          std: kind === "layer_norm",
          ...(options.bare ? { k } : {}),
        });
      }
      // An import of ours, by the Python package; test/python has what else it reads.
      const imported = fresh();
      await importSae(join(FIXTURES, "openai.pt"), { out: imported });
      jobs.push({ form: "saetta", path: imported, name: "saetta-imported", run: imported, std: false });
      const list = join(folder, "jobs.json");
      await writeFile(
        list,
        JSON.stringify(jobs.map(({ name, ...job }) => ({ ...job, rows: ROWS_FILE, d, out: join(folder, name) }))),
      );
      await promisify(execFile)(PYTHON, [fileURLToPath(new URL("rules.py", import.meta.url)), list]);
      for (const { name, run, std } of jobs) {
        await using sae = await loadSae(run, { engine, undoneWithStd: std });
        const off = differences(await answer(sae), expected(name, folder));
        expect(off.latents, name).toBeLessThan(1e-5);
        expect(off.output, name).toBeLessThan(1e-5);
      }
    });
  },
);
