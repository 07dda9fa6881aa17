import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { atMost, type Chunk, rowsOf } from "../data/chunks.ts";
import { countRows } from "../data/holdout.ts";
import { pairSources } from "../data/pair.ts";
import type { Source } from "../data/source.ts";
import { allocParams } from "../engine/allocate.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { firingLists } from "../features/firings.ts";
import { writeSafetensors } from "../formats/safetensors.ts";
import { loadSae, type Sae, saeOver } from "../inference/sae.ts";
import { paramsOf } from "../sae/architectures/index.ts";
import { autoencoderDims, transcoderDims } from "../sae/dims.ts";
import { writeReals } from "../train/state.ts";
import { bytesOf, float32Of } from "../util/bytes.ts";
import { evaluate } from "./evaluate.ts";
import { Moments } from "./moments.ts";

/** Rows of f32 in memory. */
function memorySource(rows: readonly (readonly number[])[]): Source {
  const d = rows[0]?.length ?? 0;
  const values = Float32Array.from(rows.flat());
  return {
    description: "memory",
    paths: ["memory"],
    dIn: d,
    rows: rows.length,
    dtype: "f32",
    sequence: undefined,
    grain: 1,
    origin: {},
    tokens: undefined,
    read: async (first, count, into) => into.set(bytesOf(values.subarray(first * d, (first + count) * d))),
    locate: (row) => `memory, row ${row}`,
    close: async () => undefined,
  };
}

async function collect(
  chunks: AsyncIterable<Chunk>,
): Promise<{ numbers: number[]; values: number[]; sizes: number[] }> {
  const all = { numbers: [] as number[], values: [] as number[], sizes: [] as number[] };
  for await (const { rows, raw, numbers } of chunks) {
    all.numbers.push(...numbers);
    all.values.push(...float32Of(raw));
    all.sizes.push(rows);
  }
  return all;
}

describe("a transcoder", () => {
  const x = memorySource([
    [1, 2],
    [3, 4],
    [5, 6],
    [7, 9],
  ]);
  const y = memorySource([[1], [2], [3], [6]]);
  /** Writes 2 for every row, in the units of the file. */
  const constant = {
    dims: transcoderDims(2, 4, 1),
    description: {
      dims: transcoderDims(2, 4, 1),
      spec: { architecture: "topk", k: 1, auxk: 0 },
      saetta: { version: "0", engine: "e", normalization: "scale", normalizationFactor: 7, targetFactor: 0.5 },
    },
    reconstructRaw: async (raw: Uint8Array, _: string, rows: number) => {
      expect(raw.length).toBe(rows * 2 * 4);
      return {
        codes: { k: 1, latent: new Uint32Array(rows), value: new Float32Array(rows).fill(1) },
        output: new Float32Array(rows).fill(2),
      };
    },
  } as unknown as Sae;

  it("is measured on its targets, in the scale of training", async () => {
    const source = await pairSources(x, y);
    const { mse, rawFvu, fvu, rows } = await evaluate(constant, "f32", rowsOf(source, [{ first: 0, count: 4 }]));
    expect(rows).toBe(4);
    expect(mse).toBeCloseTo((1 + 0 + 1 + 16) / 4 / 4, 12); // of halved targets
    expect(fvu).toBeCloseTo(18 / 14, 6);
    expect(rawFvu).toBeCloseTo(18 / 14, 6);
  });

  it("is not measured without them", async () => {
    const rows = rowsOf(x, [{ first: 0, count: 4 }]);
    await expect(evaluate(constant, "f32", rows)).rejects.toThrow(
      "a transcoder is measured on targets, and these rows have none; name the targets with --target",
    );
  });
});

describe("rowsOf", () => {
  const source = memorySource(Array.from({ length: 10 }, (_, row) => [row, -row]));

  it("gives the rows of the ranges in chunks", async () => {
    const ranges = [
      { first: 1, count: 3 },
      { first: 5, count: 4 },
    ];
    const { numbers, values, sizes } = await collect(rowsOf(source, ranges, { nonFinite: "stop", chunkRows: 3 }));
    expect(numbers).toEqual([1, 2, 3, 5, 6, 7, 8]);
    expect(values).toEqual([1, -1, 2, -2, 3, -3, 5, -5, 6, -6, 7, -7, 8, -8]);
    expect(sizes).toEqual([3, 3, 1]);
  });

  it("stops at a row that is not finite, or leaves it out", async () => {
    const holed = memorySource([
      [1, 1],
      [2, Number.NaN],
      [Number.POSITIVE_INFINITY, 3],
      [4, 4],
      [5, 5],
      [6, Number.NaN],
    ]);
    const ranges = [{ first: 0, count: 6 }];
    await expect(collect(rowsOf(holed, ranges))).rejects.toThrow(
      "memory, row 1: holds NaN or Inf; mend the file, or pass --non-finite skip",
    );
    for (const size of [1, 2, 3, 6]) {
      const { numbers, values } = await collect(rowsOf(holed, ranges, { nonFinite: "skip", chunkRows: size }));
      expect(numbers).toEqual([0, 3, 4]);
      expect(values).toEqual([1, 1, 4, 4, 5, 5]);
    }
  });
});

describe("atMost", () => {
  const ranges = Array.from({ length: 40 }, (_, i) => ({ first: i * 1000, count: 255 }));

  it("keeps everything when there is not more", () => {
    expect(atMost(ranges, 40 * 255)).toEqual(ranges);
  });

  it("keeps so many rows, from one end to the other", () => {
    for (const most of [1, 100, 1000, 5000, 10_000]) {
      const kept = atMost(ranges, most);
      expect(countRows(kept)).toBeLessThanOrEqual(most);
      expect(countRows(kept)).toBeGreaterThan(most - 256);
    }
    const starts = atMost(ranges, 1020).map(({ first }) => Math.floor(first / 10_000));
    expect(starts).toEqual([0, 1, 2, 3]);
    expect(atMost([{ first: 0, count: 100_000 }], 512)).toHaveLength(2);
  });
});

describe("Moments", () => {
  it("is right when the mean is a billion times the spread", () => {
    const d = 2;
    const rows = Float64Array.from({ length: 1000 * d }, (_, i) => (i % d === 0 ? 1e9 : -3e8) + ((i * 7919) % 17) / 16);
    const means = [0, 1].map((column) =>
      rows.filter((_, i) => i % d === column).reduce((sum, x) => sum + (x - rows[column]) / 1000, rows[column]),
    );
    const spread = rows.reduce((sum, x, i) => sum + (x - means[i % d]) ** 2, 0);
    const moments = new Moments(d);
    for (const [from, to] of [
      [0, 1],
      [1, 400],
      [400, 400],
      [400, 1000],
    ] as const)
      moments.add(rows.subarray(from * d, to * d), to - from);
    expect(Math.abs(moments.spread / spread - 1)).toBeLessThan(1e-7);
  });
});

describe("evaluate", () => {
  let folder: string;
  let sae: Sae;
  const engine = createReferenceEngine();
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "saetta-eval-"));
    // Latents 0 and 1 read the inputs; 2 never fires. One is active a row, so the weaker input is
    // lost.
    await writeFile(join(folder, "cfg.json"), JSON.stringify({ d_in: 2, num_latents: 3, k: 1, expansion_factor: 1 }));
    const part = (name: string, shape: number[], values: number[]) => ({
      name,
      dtype: "F32" as const,
      shape,
      bytes: async () => bytesOf(Float32Array.from(values)),
    });
    const pieces: Uint8Array[] = [];
    await writeSafetensors(
      async (bytes) => void pieces.push(bytes),
      [
        part("encoder.weight", [3, 2], [1, 0, 0, 1, 0, 0]),
        part("encoder.bias", [3], [0, 0, -1]),
        part("W_dec", [3, 2], [1, 0, 0, 1, 1, 0]),
        part("b_dec", [2], [0, 0]),
      ],
    );
    await writeFile(join(folder, "sae.safetensors"), Buffer.concat(pieces));
    sae = await loadSae(folder, { engine });
  });
  afterEach(async () => {
    await sae.close();
    await rm(folder, { recursive: true });
  });

  const source = memorySource([
    [4, 1],
    [4, -1],
    [2, 3],
    [-2, -1],
  ]);
  const rows = () => rowsOf(source, [{ first: 0, count: 4 }], { nonFinite: "stop", chunkRows: 3 });

  it("gives what the definitions say", async () => {
    // Reconstructions: [4,0], [4,0], [0,3], [0,0]; errors squared: 1 + 1 + 4 + 5. Means: 2 and 0.5;
    // spreads: 4+4+0+16 and .25+2.25+6.25+2.25.
    const found = await evaluate(sae, "f32", rows());
    expect(found).toMatchObject({ rows: 4, latents: 3, dead: 1, l0: 0.75, mse: 11 / 8 });
    expect(found.fvu).toBeCloseTo(11 / 35, 12);
    expect(found.normalizedMse).toBeCloseTo(11 / 52, 12);
    expect(found.deadFraction).toBeCloseTo(1 / 3, 12);
    expect(found.densityUnit).toBe("log10 of the share of rows");
    const filled = found.density.filter(({ latents }) => latents > 0);
    // Densities 1/2 and 1/4: the bins from 10^-0.5 = 0.32 to 1, and from 0.1 to 0.32.
    expect(filled).toEqual([
      { from: -1, to: -0.5, latents: 1 },
      { from: -0.5, to: 0, latents: 1 },
    ]);
    expect(found.density.reduce((sum, { latents }) => sum + latents, found.dead)).toBe(3);
  });

  it("of a Matryoshka autoencoder has the FVU of each prefix, and L0 by the threshold next to k of training", async () => {
    const dims = autoencoderDims(2, 4);
    const sizes = { k: 1.5, auxk: 0, prefixes: [1, 3, 4], weights: [1, 1, 1] };
    const spec = { architecture: "matryoshka", selection: "batchtopk", ...sizes } as const;
    const params = allocParams(engine, dims, paramsOf(spec));
    const rowsOfEach = Float64Array.of(1, 0, 0, 1, 0, 0, -1, 0);
    for (const name of ["encoder", "decoder"] as const) writeReals(engine, params[name], rowsOfEach);
    writeReals(engine, params.preBias, Float64Array.of(0.5, 0));
    writeReals(engine, params.cut!, Float64Array.of(0.75));
    const origin = {
      path: undefined,
      step: 1,
      weights: "raw",
      description: { dims, spec, saetta: undefined },
      refusals: [],
    } as const;
    await using nested = await saeOver(origin, engine, params, () => Promise.resolve());
    // Codes: 3.5 and 1; 3.5 and none; 1.5 and 3; of latent 3 2.5. By latent 0 alone the errors are
    // [0,1], [0,1], [0,3] and [2.5,1]; by three [0,0], [0,1], [0,0] and [2.5,1]; by all [0,1] less.
    const { fvu, l0, l0Training, prefixFvu } = await evaluate(nested, "f32", rows());
    expect(prefixFvu.map(({ latents }) => latents)).toEqual([1, 3, 4]);
    for (const [i, squares] of [18.25, 8.25, 2].entries()) expect(prefixFvu[i]!.fvu).toBeCloseTo(squares / 35, 12);
    expect(fvu).toBe(prefixFvu[2]!.fvu);
    expect([l0, l0Training]).toEqual([1.5, 1.5]);
  });

  it("has no FVU where all rows are the same, and wants rows", async () => {
    const same = memorySource([
      [4, 1],
      [4, 1],
    ]);
    expect((await evaluate(sae, "f32", rowsOf(same, [{ first: 0, count: 2 }]))).fvu).toBeNull();
    await expect(evaluate(sae, "f32", rowsOf(same, []))).rejects.toThrow("there are no rows to evaluate on");
  });

  it("shows each chunk with its codes, from which firings are listed by latent", async () => {
    const seen: string[] = [];
    await evaluate(sae, "f32", rows(), {
      async onChunk(chunk, codes) {
        const { offsets, row, value } = firingLists(codes, 3);
        seen.push(`${[...chunk.numbers]} | ${[...offsets]} | ${[...row]} | ${[...value]}`);
        await Promise.resolve();
        seen.push("waited for");
      },
    });
    expect(seen).toEqual(["0,1,2 | 0,2,3,3 | 0,1,2 | 4,4,3", "waited for", "3 | 0,0,0,0 |  | ", "waited for"]);
  });
});
