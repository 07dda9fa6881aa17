/** `saetta report --format`: the files of other viewers, field by field. */

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openSafetensors, type SafetensorsEntry } from "../../src/formats/safetensors.ts";
import { CONTEXT, LATENTS, plant } from "../support/planted.ts";
import { saetta } from "./saetta.ts";

const SEQUENCES = 12;
let folder = "";
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "saetta-viewers-"));
  await plant(folder, SEQUENCES);
  expect((await saetta(folder, "label", "set", "sae", "20", "--name", 'a, "b"')).code).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true }));

const report = async (format: string, ...more: string[]) => {
  const done = await saetta(
    folder,
    ...["report", "sae", "--data", "acts.h5", "--format", format, "--engine", "reference", ...more],
  );
  expect([done.code, done.err]).toEqual([0, ""]);
};

describe("saetta report --format", () => {
  it("saedashboard has each field of NeuronpediaDashboardFeature, and no other", async () => {
    await report("saedashboard");
    expect(readdirSync(join(folder, "saedashboard"))).toEqual(["batch-0.json"]);
    const batch = JSON.parse(readFileSync(join(folder, "saedashboard", "batch-0.json"), "utf8")) as {
      features: Record<string, unknown>[];
    };
    expect(Object.keys(batch)).toEqual(["model_id", "layer", "sae_set", "features"]);
    expect(batch.features).toHaveLength(LATENTS);
    const lists = ["indices", "values", "l1"].map((each) => `neuron_alignment_${each}`);
    const correlated = ["neurons", "features"].flatMap((of) =>
      ["indices", "l1", "pearson"].map((each) => `correlated_${of}_${each}`),
    );
    const [feature] = batch.features.filter(({ feature_index }) => feature_index === 20);
    expect(Object.keys(feature!).toSorted()).toEqual(
      [
        ...["feature_index", ...lists, ...correlated, "neg_str", "neg_values", "pos_str", "pos_values", "frac_nonzero"],
        ...["freq_hist_data_bar_values", "freq_hist_data_bar_heights", "logits_hist_data_bar_heights"],
        ...["logits_hist_data_bar_values", "n_prompts_total", "n_tokens_in_prompt", "dataset", "activations"],
        "decoder_weights_dist",
      ].toSorted(),
    );
    const activations = feature!.activations as { tokens: string[]; values: number[]; bin_min: number }[];
    expect(activations[0]!.bin_min).toBe(-1);
    for (const { tokens, values } of activations) {
      expect(tokens.length).toBe(values.length);
      expect(Math.max(...values)).toBeGreaterThan(0);
    }
  });

  it("neuronpedia has the tables of an import", async () => {
    await report("neuronpedia");
    const [model = ""] = readdirSync(join(folder, "neuronpedia"));
    const [source = ""] = readdirSync(join(folder, "neuronpedia", model));
    const at = join(folder, "neuronpedia", model, source);
    expect(readdirSync(at).toSorted()).toEqual([
      "activations",
      "features",
      "model.jsonl",
      "release.jsonl",
      "source.jsonl",
      "sourceset.jsonl",
    ]);
    const rows = (name: string) =>
      gunzipSync(readFileSync(join(at, name, "batch-0.jsonl.gz")))
        .toString()
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as Record<string, unknown>);
    const features = rows("features");
    expect(features.map(({ index }) => index)).toEqual(Array.from({ length: LATENTS }, (_, i) => String(i)));
    expect(features[20]).toMatchObject({ modelId: model, layer: source, hasVector: false });
    const activations = rows("activations");
    expect(new Set(activations.map(({ id }) => id)).size).toBe(activations.length);
    for (const { values, maxValue, maxValueTokenIndex, modelId, layer } of activations as {
      values: number[];
      maxValue: number;
      maxValueTokenIndex: number;
      modelId: string;
      layer: string;
    }[]) {
      expect([modelId, layer, values[maxValueTokenIndex], Math.max(...values)]).toEqual([
        model,
        source,
        maxValue,
        maxValue,
      ]);
    }
  });

  it("csv has a line per latent, with its name", async () => {
    await report("csv");
    const lines = readFileSync(join(folder, "latents.csv"), "utf8").trimEnd().split("\n");
    expect(lines[0]).toBe("latent,name,note,firings,density,max,importance,score,fires_on,promotes");
    expect(lines).toHaveLength(1 + LATENTS);
    expect(lines[21]).toMatch(/^20,"a, ""b""",,\d+,/);
  });

  it("delphi has all codes, split by latent, with the tokens", async () => {
    await report("delphi");
    const encoded = await saetta(
      folder,
      "encode",
      "sae",
      "acts.h5",
      "--out",
      "codes.safetensors",
      "--engine",
      "reference",
    );
    expect(encoded.code).toBe(0);
    const latents = join(folder, "delphi", "latents");
    const [module = ""] = readdirSync(latents);
    const files = readdirSync(join(latents, module)).toSorted();
    expect(files).toContain("config.json");
    expect(JSON.parse(readFileSync(join(latents, module, "config.json"), "utf8"))).toMatchObject({ ctx_len: CONTEXT });
    let codes = 0;
    for (const name of files.filter((each) => each.endsWith(".safetensors"))) {
      const [first = 0, last = 0] = name.split(/[_.]/).map(Number);
      const file = await openSafetensors(join(latents, module, name));
      const { locations, activations, tokens } = Object.fromEntries(file.tensors) as Partial<
        Record<string, SafetensorsEntry>
      >;
      expect([locations!.dtype, activations!.dtype, tokens!.dtype]).toEqual(["U16", "F16", "I64"]);
      expect(tokens!.shape).toEqual([SEQUENCES, CONTEXT]);
      expect(locations!.shape).toEqual([activations!.shape[0], 3]);
      await file.close();
      codes += locations!.shape[0]!;
      expect(last).toBeLessThan(LATENTS);
      expect(first).toBeLessThanOrEqual(last);
    }
    const whole = await openSafetensors(join(folder, "codes.safetensors"));
    expect(codes).toBe(whole.tensors.get("data")?.shape[0]);
    await whole.close();
  });
});
