/**
 * `saetta.load` of the Python package against the command's own encode and decode, for whatever
 * Saetta writes.
 */

import { execFile } from "node:child_process";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { saveCheckpoint } from "../../src/checkpoint/save.ts";
import { COUNTERS, type Engine } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { loadSae } from "../../src/inference/sae.ts";
import { type ArchitectureSpec, architectureNames } from "../../src/sae/architectures/index.ts";
import { paramNames, type SaeDescription } from "../../src/sae/description.ts";
import { autoencoderDims, transcoderDims } from "../../src/sae/dims.ts";
import type { Normalization } from "../../src/sae/math.ts";
import { paramEntries } from "../../src/sae/params.ts";
import { allocState, writeReals } from "../../src/train/state.ts";
import { bytesOf } from "../../src/util/bytes.ts";
import { Rng } from "../../src/util/rng.ts";
import { dense, differences, expected } from "../interchange/fixtures.ts";
import { PYTHON, python } from "../support/python.ts";
import { scratch } from "../support/scratch.ts";

const torch = await python("torch");
const [d, n, k, rows] = [6, 24, 4, 16];
const DECAY = 0.9;
const UPDATES = 10;

const SPECS: Readonly<Record<string, ArchitectureSpec>> = {
  topk: { architecture: "topk", k, auxk: 3 },
  batchtopk: { architecture: "batchtopk", k: 3.5, auxk: 0 },
  matryoshka: {
    ...{ architecture: "matryoshka", k, auxk: 0, selection: "batchtopk" },
    ...{ prefixes: [6, n], weights: [0.5, 0.5] },
  },
  "matryoshka by topk": {
    ...{ architecture: "matryoshka", k, auxk: 0, selection: "topk" },
    ...{ prefixes: [6, n], weights: [0.5, 0.5] },
  },
  jumprelu: { architecture: "jumprelu", targetL0: 4 },
};
const OF_TRANSCODERS = ["none", "scale"] as const;
const KINDS = [...OF_TRANSCODERS, "unit", "layer_norm"] as const;

interface Case {
  readonly name: string;
  readonly description: Pick<SaeDescription, "dims" | "skip" | "spec" | "decoderNorm">;
  readonly kind: Normalization["kind"];
  readonly ema: boolean;
  readonly undoneWith?: "std";
}

const CASES: readonly Case[] = Object.entries(SPECS).flatMap(([architecture, spec]) => {
  const both = [false, true];
  const own = KINDS.flatMap((kind) =>
    both.map((ema) => ({
      ...{ name: `${architecture}, ${kind}, ema ${ema}`, kind, ema },
      description: { dims: autoencoderDims(d, n), spec },
    })),
  );
  const transcoders = OF_TRANSCODERS.flatMap((kind) =>
    both.flatMap((ema) =>
      both.map((skip) => ({
        ...{ name: `transcoder of ${architecture}, ${kind}, ema ${ema}, skip ${skip}`, kind, ema },
        description: { dims: transcoderDims(d, n, d + 3), spec, ...(skip ? { skip } : {}) },
      })),
    ),
  );
  const undone = { kind: "layer_norm", ema: false, undoneWith: "std" } as const;
  const std = {
    ...undone,
    name: `${architecture}, undone with std`,
    description: { dims: autoencoderDims(d, n), spec },
  };
  const free = {
    ...({ kind: "none", ema: true, name: `${architecture}, free decoder rows` } as const),
    description: { dims: autoencoderDims(d, n), spec, decoderNorm: "free" } as const,
  };
  return [...own, ...transcoders, std, free];
});

let folder: string;
let engine: Engine;
beforeAll(async () => {
  folder = await scratch("python");
  engine = createReferenceEngine();
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

/** A run folder with one checkpoint of drawn weights; the average, if any, is of other ones. */
async function runOf({ name, description, kind, ema, undoneWith }: Case): Promise<string> {
  const { dims, spec, skip = false } = description;
  const state = allocState(engine, dims, paramNames({ spec, skip }), ema);
  const draw = (params: typeof state.params, seed: number, share: number) => {
    const rng = new Rng(seed);
    for (const [param, { update }, tensor] of paramEntries(params)) {
      const isGate = param === "threshold" || param === "cut";
      const of = update.startsWith("adam") ? share : 1;
      const next = () => (isGate ? 0.1 + Math.abs(0.5 * rng.normal()) : 0.5 * rng.normal()) * of;
      writeReals(engine, tensor, Float64Array.from({ length: tensor.shape.reduce((a, b) => a * b, 1) }, next));
    }
  };
  draw(state.params, 1, 1);
  if (state.ema !== undefined) draw(state.ema, 2, 1 - DECAY ** UPDATES);
  engine.write(state.counters, bytesOf(Float64Array.from(COUNTERS, () => UPDATES)));
  const scaled = { normalizationFactor: 3, ...(dims.untied === true ? { targetFactor: 0.7 } : {}) };
  const saetta = {
    ...{ version: "0.1.0", engine: engine.description, normalization: kind },
    ...(kind === "scale" ? scaled : {}),
    ...(ema ? { emaDecay: DECAY } : {}),
    ...(undoneWith === undefined ? {} : { undoneWith }),
  };
  const run = join(folder, `run of ${name}`);
  await mkdir(run);
  await saveCheckpoint(run, { engine, state, step: 10, description: { ...description, saetta }, progress: {} });
  return run;
}

/** Rows of any scale, one of them constant and one zero. */
function drawnRows(): Float32Array {
  const rng = new Rng(3);
  const values = Float32Array.from({ length: rows * d }, (_, i) => 2 ** (Math.floor(i / d) % 5) * rng.normal() + 0.3);
  values.fill(0.1, 0, d);
  values.fill(0, d, 2 * d);
  return values;
}

describe.skipIf(torch !== undefined)(
  `saetta.load of the Python package${torch === undefined ? "" : ` (${torch})`}`,
  () => {
    it("gives the command's own latents and reconstructions: every architecture, normalisation and EMA", async () => {
      const tested = new Set(Object.values(SPECS).map(({ architecture }) => architecture));
      expect(tested).toEqual(new Set(architectureNames()));
      const input = drawnRows();
      const rowsFile = join(folder, "rows");
      await writeFile(rowsFile, bytesOf(input));
      const jobs: { form: string; path: string; rows: string; d: number; out: string }[] = [];
      for (const each of CASES)
        jobs.push({ form: "saetta", path: await runOf(each), rows: rowsFile, d, out: join(folder, each.name) });
      const list = join(folder, "jobs.json");
      await writeFile(list, JSON.stringify(jobs));
      await promisify(execFile)(PYTHON, [fileURLToPath(new URL("../interchange/rules.py", import.meta.url)), list]);
      for (const [i, { name }] of CASES.entries()) {
        await using sae = await loadSae(jobs[i]!.path, { engine });
        const codes = await sae.encode(input);
        const right = { latents: dense(codes, n), output: await sae.decode(codes, input) };
        expect(right.latents.filter((value) => value > 0).length, name).toBeGreaterThan(rows);
        const off = differences(expected(name, folder), right);
        expect(off.latents, name).toBeLessThan(1e-5);
        expect(off.output, name).toBeLessThan(1e-5);
      }
    });
  },
);
