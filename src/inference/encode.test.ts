import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { d, difference, expected, ROWS as FIXTURE_ROWS, FIXTURES, n } from "../../test/interchange/fixtures.ts";
import { cpuEngine, whyNoCpu } from "../../test/support/engines.ts";
import { learnableRows, memorySource } from "../../test/support/memory-source.ts";
import { PYTHON, python } from "../../test/support/python.ts";
import { type Engine, NONE } from "../engine/engine.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { openSafetensors, writeSafetensors } from "../formats/safetensors.ts";
import { evalReport } from "../metrics/report.ts";
import { atomicWrite } from "../util/atomic-write.ts";
import { bytesOf } from "../util/bytes.ts";
import { csrOf, type EncodeOptions, encode } from "./encode.ts";
import { loadSae, type Sae } from "./sae.ts";

const run = promisify(execFile);
const [numpy, h5py] = [await python("numpy"), await python("h5py")];

let folder: string;
let engine: Engine;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-encode-"));
  engine = createReferenceEngine();
});
afterEach(async () => {
  await engine[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

const ROWS = 300;
const values = learnableRows(ROWS, d, 30);
const tokens = Array.from({ length: ROWS }, (_, row) => (row * 7) % 50);
/** 30 sequences of 10. */
const source = memorySource(values, d, { sequence: 10, tokens });
const jumprelu = () => loadSae(join(FIXTURES, "saelens-jumprelu"), { engine });

interface Stored {
  readonly [name: string]: readonly number[];
}

/** What the arrays of a .safetensors file hold. */
async function stored(path: string): Promise<Stored> {
  const file = await openSafetensors(path);
  const arrays: Record<string, number[]> = {};
  for (const [name, { dtype }] of file.tensors) {
    const bytes = await file.read(name);
    const all = { F32: Float32Array, F64: Float64Array, I32: Int32Array, I64: BigInt64Array }[dtype as "F32"];
    arrays[name] = Array.from(new all(bytes.buffer), Number);
  }
  await file.close();
  return arrays;
}

/** The matrix of the file, with all its zeros. */
function dense({ shape, indptr, indices, data }: Stored): number[] {
  const [rows, latents] = shape as [number, number];
  const matrix = new Array<number>(rows * latents).fill(0);
  for (let row = 0; row < rows; row++)
    for (let at = indptr![row]!; at < indptr![row + 1]!; at++) matrix[row * latents + indices![at]!] = data![at]!;
  return matrix;
}

/** The same matrix from the autoencoder itself. */
async function denseOf(sae: Sae, rows: Float32Array): Promise<number[]> {
  const { k, latent, value } = await sae.encode(rows);
  const matrix = new Array<number>((rows.length / d) * n).fill(0);
  for (const [slot, j] of latent.entries()) if (j !== NONE) matrix[Math.floor(slot / k) * n + j] = value[slot]!;
  return matrix;
}

it("writes the codes of every row, in the order of the latents, with row numbers, tokens and positions", async () => {
  await using sae = await jumprelu();
  const out = join(folder, "new", "codes.safetensors");
  const done = await encode(sae, source, { out });
  const file = await stored(out);
  expect(dense(file)).toEqual(await denseOf(sae, values));
  expect(file.shape).toEqual([ROWS, n]);
  expect(file.row_numbers).toEqual(tokens.map((_, row) => row));
  expect(file.tokens).toEqual(tokens);
  expect(file.positions).toEqual(tokens.map((_, row) => row % 10));
  expect(file.data!.every((value) => value > 0)).toBe(true);
  for (let row = 0; row < ROWS; row++) {
    const latents = file.indices!.slice(file.indptr![row], file.indptr![row + 1]);
    expect(latents).toEqual(latents.toSorted((a, b) => a - b));
  }
  expect(done).toEqual({
    out,
    rows: ROWS,
    leftOut: 0,
    latents: n,
    codes: file.data!.length,
    l0: file.data!.length / ROWS,
    tokens: true,
    positions: true,
  });
  expect(done.codes).toBeGreaterThan(ROWS);
  expect(await readdir(join(folder, "new"))).toEqual(["codes.safetensors"]);
});

it("gives the latents that PyTorch computed by the rule of SAELens", async () => {
  await using sae = await jumprelu();
  const out = join(folder, "codes.safetensors");
  await encode(sae, memorySource(FIXTURE_ROWS, d), { out });
  const file = await stored(out);
  const { latents } = expected("saelens-jumprelu");
  expect(difference(Float32Array.from(dense(file)), latents)).toBeLessThan(1e-5);
  expect(file.tokens).toBeUndefined();
  expect(file.positions).toBeUndefined();
});

it("writes the rows of the ranges, as many as are asked for, and says how many it left out", async () => {
  await using sae = await jumprelu();
  const out = join(folder, "codes.safetensors");
  const ranges = [
    { first: 3, count: 4 },
    { first: 290, count: 10 },
  ];
  expect(await encode(sae, source, { out, ranges })).toMatchObject({ rows: 14, leftOut: ROWS - 14 });
  const file = await stored(out);
  const numbers = [3, 4, 5, 6, ...Array.from({ length: 10 }, (_, i) => 290 + i)];
  expect(file.row_numbers).toEqual(numbers);
  expect(file.tokens).toEqual(numbers.map((row) => tokens[row]));
  expect(file.positions).toEqual(numbers.map((row) => row % 10));
  const chosen = Float32Array.from(numbers.flatMap((row) => [...values.subarray(row * d, (row + 1) * d)]));
  expect(dense(file)).toEqual(await denseOf(sae, chosen));
  expect(await encode(sae, source, { out, ranges, maxRows: 4, force: true })).toMatchObject({ rows: 4 });
});

it("writes as many codes as a row has, also all latents", async () => {
  await using sae = await jumprelu();
  const large = values.map((value) => value * 1e4);
  const out = join(folder, "codes.safetensors");
  const { l0 } = await encode(sae, memorySource(large, d), { out });
  expect(l0).toBeGreaterThan(n / 4);
  expect(dense(await stored(out))).toEqual(await denseOf(sae, large));
});

it("leaves out rows that are not finite where that is asked for", async () => {
  await using sae = await jumprelu();
  const broken = values.slice();
  broken[5 * d + 1] = Number.NaN;
  const out = join(folder, "codes.safetensors");
  await expect(encode(sae, memorySource(broken, d), { out })).rejects.toThrow("memory.h5, row 5: holds NaN or Inf");
  expect(await readdir(folder)).toEqual([]);
  expect(await encode(sae, memorySource(broken, d), { out, nonFinite: "skip" })).toMatchObject({ leftOut: 1 });
  expect((await stored(out)).row_numbers!.slice(4, 6)).toEqual([4, 6]);
});

const noCpu = whyNoCpu();
it.skipIf(noCpu !== undefined)(
  `takes fewer rows at a time where a row may have many codes (${noCpu ?? "cpu"})`,
  async () => {
    const latents = 65_536;
    const wide = join(folder, "wide");
    await mkdir(wide);
    const cfg = { architecture: "jumprelu", d_in: 1, d_sae: latents, apply_b_dec_to_input: false };
    await writeFile(join(wide, "cfg.json"), JSON.stringify({ ...cfg, normalize_activations: "none" }));
    const part = (name: string, shape: readonly number[], value: number) => {
      const bytes = bytesOf(new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(value));
      return { name, dtype: "F32" as const, shape, bytes: () => Promise.resolve(bytes) };
    };
    const weights = [part("W_enc", [1, latents], 1), part("W_dec", [latents, 1], 1), part("b_enc", [latents], 0)];
    await atomicWrite(join(wide, "sae_weights.safetensors"), (write) =>
      writeSafetensors(write, [...weights, part("b_dec", [1], 0), part("threshold", [latents], 0.5)]),
    );
    // Two rows have all latents on, at 8 bytes a code.
    const rows = memorySource(
      Float32Array.from({ length: 600 }, (_, row) => (row === 3 || row === 555 ? 1 : 0)),
      1,
    );
    await using cpu = await cpuEngine();
    await using sae = await loadSae(wide, { engine: cpu });
    const done = await encode(sae, rows, { out: join(folder, "codes.npz") });
    expect(done.codes).toBe(2 * latents);
    expect(rows.reads).toEqual([
      [0, 512],
      [512, 88],
    ]);
    rows.reads.length = 0;
    expect((await evalReport(sae, rows, [{ first: 0, count: 600 }])).metrics.l0).toBe((2 * latents) / 600);
    expect(rows.reads.map(([, count]) => count)).toEqual([512, 88]);
  },
);

describe.each(["npz", "h5", "safetensors"] as const)("a .%s", (format) => {
  const python3 = format === "h5" ? h5py : numpy;

  /** Arrays as NumPy or h5py reads them. */
  async function read(path: string): Promise<Record<string, { dtype: string; values: unknown }>> {
    const load =
      format === "npz"
        ? "np.load(sys.argv[1], allow_pickle=False)"
        : format === "h5"
          ? "__import__('h5py').File(sys.argv[1])"
          : "{}";
    const script = `
import json, sys
import numpy as np
file = ${load}
say = lambda a: a.decode() if isinstance(a, bytes) else a.tolist()
print(json.dumps({k: dict(dtype=str(file[k].dtype), values=say(file[k][()])) for k in file.keys()}))`;
    return JSON.parse((await run(PYTHON, ["-c", script, path])).stdout) as Record<
      string,
      { dtype: string; values: unknown }
    >;
  }

  it.skipIf(format === "safetensors" || python3 !== undefined)(
    `is read by Python, with the same arrays as .safetensors${python3 === undefined ? "" : ` (${python3})`}`,
    async () => {
      await using sae = await jumprelu();
      const [out, other] = [join(folder, `codes.${format}`), join(folder, "codes.safetensors")];
      await encode(sae, source, { out });
      await encode(sae, source, { out: other });
      const { format: kind, ...found } = await read(out);
      const same = await stored(other);
      expect(Object.fromEntries(Object.entries(found).map(([name, array]) => [name, array.values]))).toEqual(same);
      expect(Object.fromEntries(Object.entries(found).map(([name, array]) => [name, array.dtype]))).toEqual({
        data: "float32",
        indices: "int32",
        indptr: "int64",
        shape: "int64",
        row_numbers: "int64",
        tokens: "int32",
        positions: "int32",
      });
      // scipy.sparse.load_npz asks for this one by name, and decodes it.
      expect(kind).toEqual(format === "npz" ? { dtype: "|S3", values: "csr" } : undefined);
    },
  );

  it("is the same file each time, and is not replaced unless asked", async () => {
    await using sae = await jumprelu();
    const out = join(folder, `codes.${format}`);
    const hash = async () =>
      createHash("sha256")
        .update(await readFile(out))
        .digest("hex");
    await encode(sae, source, { out });
    const first = await hash();
    await expect(encode(sae, source, { out })).rejects.toThrow(
      `${out}: exists already; choose another name, or replace it with --force`,
    );
    await writeFile(out, "of another program");
    await encode(sae, source, { out, force: true });
    expect(await hash()).toBe(first);
  });

  it("may have no codes at all", async () => {
    await using sae = await jumprelu();
    const out = join(folder, `codes.${format}`);
    // Thresholds are above 0: rows at b_dec activate nothing.
    const still = await sae.parameter("preBias");
    const rows = Float32Array.from({ length: 5 * d }, (_, i) => still[i % d]!);
    const done = await encode(quiet(sae), memorySource(rows, d), { out });
    expect(done).toMatchObject({ rows: 5, codes: 0, l0: 0 });
    if (format === "safetensors") expect(await stored(out)).toMatchObject({ data: [], indptr: [0, 0, 0, 0, 0, 0] });
    else if (python3 === undefined)
      expect(await read(out)).toMatchObject({
        data: { values: [] },
        indices: { values: [] },
        indptr: { values: [0, 0, 0, 0, 0, 0] },
        shape: { values: [5, n] },
      });
  });

  it("is not there when the work is stopped or fails, nor is anything else", async () => {
    await using sae = await jumprelu();
    const stop = new AbortController();
    const out = join(folder, `codes.${format}`);
    const options: EncodeOptions = { out, signal: stop.signal, onProgress: () => stop.abort() };
    await expect(encode(sae, source, options)).rejects.toThrow(`${out}: stopped before the end; nothing was written`);
    const broken = memorySource(learnableRows(9000, d, 30), d, { broken: 8999 });
    await expect(encode(sae, broken, { out })).rejects.toThrow("the disk is gone");
    expect(await readdir(folder)).toEqual([]);
  });
});

/** The autoencoder, with codes that have no latent on. */
function quiet(sae: Sae): Sae {
  return new Proxy(sae, {
    get(target, name) {
      if (name === "encodeRaw")
        return (_raw: Uint8Array, _dtype: string, rows: number) =>
          Promise.resolve({ k: 2, latent: new Uint32Array(rows * 2).fill(NONE), value: new Float32Array(rows * 2) });
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

it("asks for a name that says the format, and for rows of the right width", async () => {
  await using sae = await jumprelu();
  await expect(encode(sae, source, { out: join(folder, "codes.csv") })).rejects.toThrow(
    /codes\.csv: the name does not say the format; end it with \.npz, \.h5, \.hdf5 or \.safetensors$/,
  );
  const narrow = memorySource(learnableRows(4, 3, 3), 3);
  await expect(encode(sae, narrow, { out: join(folder, "codes.npz") })).rejects.toThrow(/rows have 3 numbers/);
  expect(await readdir(folder)).toEqual([]);
});

it("sorts codes by latent, and leaves out unused slots and values of 0", () => {
  const latent = Uint32Array.of(7, 3, 5, NONE, NONE, NONE, 2, 9, NONE);
  const value = Float32Array.of(3, 2, 1, 0, 0, 0, 4, 0, 0);
  expect(csrOf({ k: 3, latent, value }, 3)).toEqual({
    starts: Float64Array.of(0, 3, 3, 4),
    data: Float32Array.of(2, 1, 3, 4),
    indices: Int32Array.of(3, 5, 7, 2),
  });
});
