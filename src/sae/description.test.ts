import { describe, expect, it } from "vitest";
import { described } from "../../test/topk.ts";
import {
  descriptionJson,
  hasUnitDecoder,
  normalizationOf,
  paramNames,
  parseDescription,
  type SaeDescription,
  targetNormalizationOf,
} from "./description.ts";
import { transcoderDims } from "./dims.ts";

const full: SaeDescription = {
  ...described({ d: 4, n: 10, k: 3, auxk: 2 }),
  saetta: {
    version: "0.1.0",
    engine: "reference",
    normalization: "none",
    emaDecay: 0.999,
    model: "m.onnx",
    tensor: "t",
    tokenizer: "tokenizer.json",
  },
};

describe("cfg.json", () => {
  it("is read back as it was written", () => {
    expect(parseDescription(descriptionJson(full), "cfg.json")).toEqual(full);
    const bare: SaeDescription = { ...full, saetta: { version: "0.1.0", engine: "cpu", normalization: "none" } };
    expect(parseDescription(descriptionJson(bare), "cfg.json")).toEqual(bare);
    expect(normalizationOf(bare)).toEqual({ kind: "none", factor: 1 });
    for (const how of [
      { normalization: "scale", normalizationFactor: 1 / 3 },
      { normalization: "unit" },
      { normalization: "layer_norm" },
    ] as const) {
      const normalized: SaeDescription = { ...full, saetta: { version: "0.1.0", engine: "cpu", ...how } };
      const read = parseDescription(JSON.parse(JSON.stringify(descriptionJson(normalized))), "cfg.json");
      expect(read).toEqual(normalized);
      expect(normalizationOf(read)).toEqual({
        kind: how.normalization,
        factor: how.normalization === "scale" ? 1 / 3 : 1,
      });
    }
  });

  it("of a transcoder of sparsify is as wide as its inputs", () => {
    const theirs = { ...cfg, transcode: true, skip_connection: true, saetta: undefined };
    const read = parseDescription(JSON.parse(JSON.stringify(theirs)), "cfg.json");
    expect(read).toMatchObject({ dims: transcoderDims(4, 10, 4), skip: true });
    // The first versions said it in another file.
    const early = { ...theirs, transcode: undefined, skip_connection: undefined };
    expect(parseDescription(JSON.parse(JSON.stringify(early)), "cfg.json", true).dims).toEqual(
      transcoderDims(4, 10, 4),
    );
  });

  it("of a transcoder is read back as it was written", () => {
    const saetta = { version: "0.1.0", engine: "cpu", tensor: "in", targetTensor: "out" } as const;
    const scaled = { normalization: "scale", normalizationFactor: 2, targetFactor: 0.5 } as const;
    const wide: SaeDescription = { ...full, dims: transcoderDims(4, 10, 6), saetta: { ...saetta, ...scaled } };
    const skipping: SaeDescription = { ...wide, skip: true, saetta: { ...saetta, normalization: "none" } };
    for (const each of [wide, skipping])
      expect(parseDescription(JSON.parse(JSON.stringify(descriptionJson(each))), "cfg.json")).toEqual(each);
    expect(targetNormalizationOf(wide)).toEqual({ kind: "scale", factor: 0.5 });
    expect(targetNormalizationOf(skipping)).toEqual({ kind: "none", factor: 1 });
    expect(paramNames(wide)).toEqual(["encoder", "latentBias", "decoder", "preBias"]);
    expect(paramNames(skipping)).toEqual(["encoder", "latentBias", "decoder", "preBias", "skip"]);
    const json = descriptionJson(wide);
    for (const [change, message] of [
      [{ normalization: "unit" }, 'cfg.json: normalization "unit" means nothing for a transcoder'],
      [{ target_normalization_factor: 0 }, 'cfg.json: "target_normalization_factor" must be above 0, but is 0'],
      [{ target_normalization_factor: undefined }, '"target_normalization_factor" must be a finite number'],
      [{ d_out: 0 }, 'cfg.json: "d_out" must be a whole number of at least 1, but is 0'],
      [{ d_out: 2 ** 52 }, "cfg.json: 10 latents x 4 inputs and 4503599627370496 outputs are too many"],
    ] as const) {
      const changed = JSON.parse(JSON.stringify({ ...json, saetta: { ...Object(json.saetta), ...change } }));
      expect(() => parseDescription(changed, "cfg.json")).toThrow(message);
    }
  });

  it("says whether decoder rows have norm 1 where that is not what is usual", () => {
    const there = (each: SaeDescription) =>
      parseDescription(JSON.parse(JSON.stringify(descriptionJson(each))), "cfg.json");
    const pair = { ...full, dims: transcoderDims(4, 10, 4) };
    for (const [each, hasUnit] of [
      [full, true],
      [{ ...full, decoderNorm: "free" as const }, false],
      [pair, false],
      [{ ...pair, decoderNorm: "unit" as const }, true],
    ] as const) {
      expect(descriptionJson(each)).toMatchObject({ normalize_decoder: hasUnit });
      expect(there(each)).toEqual(each);
      expect(hasUnitDecoder(there(each))).toBe(hasUnit);
    }
    // sparsify's own say true for transcoders, whose rows are free.
    const foreign = { ...Object(descriptionJson({ ...pair, saetta: undefined })), normalize_decoder: true };
    expect(hasUnitDecoder(parseDescription(foreign, "cfg.json"))).toBe(false);
  });

  it("has sparsify's keys", () => {
    expect(descriptionJson({ ...full, saetta: undefined })).toEqual({
      activation: "topk",
      expansion_factor: 3,
      normalize_decoder: true,
      num_latents: 10,
      k: 3,
      multi_topk: false,
      skip_connection: false,
      transcode: false,
      d_in: 4,
    });
  });

  it("is read as sparsify writes it", () => {
    expect(parseDescription({ expansion_factor: 8, num_latents: 0, k: 3, d_in: 4 }, "cfg.json")).toEqual({
      ...described({ d: 4, n: 32, k: 3, auxk: 0 }),
      saetta: undefined,
    });
  });

  const cfg = descriptionJson(full);
  it.each<[string, object, string]>([
    [
      "another activation",
      { activation: "groupmax" },
      'cfg.json: activation "groupmax" is not computed by Saetta (it computes "topk", "batchtopk", "matryoshka", "jumprelu")',
    ],
    [
      "a skip connection",
      { skip_connection: true },
      'cfg.json: "skip_connection" is true without "transcode", which Saetta does not compute',
    ],
    ["signed latents", { signed: true }, 'cfg.json: "signed" is true, which Saetta does not compute'],
    ["more active latents than there are", { k: 11 }, "cfg.json: k is 11, but there are only 10 latents"],
    ["a missing k", { k: undefined }, 'cfg.json: "k" must be a whole number of at least 1, but is missing'],
    ["a fraction of inputs", { d_in: 1.5 }, 'cfg.json: "d_in" must be a whole number of at least 1, but is 1.5'],
    [
      "a later format",
      { saetta: { format_version: 2 } },
      "cfg.json: format version 2 is later than 1, the last that this Saetta knows; install a newer Saetta",
    ],
    [
      "a normalization of the future",
      { saetta: { ...Object(cfg.saetta), normalization: "whitened" } },
      'cfg.json: normalization "whitened" is unknown',
    ],
    [
      "a scale without its factor",
      { saetta: { ...Object(cfg.saetta), normalization: "scale" } },
      'cfg.json: "normalization_factor" must be a finite number, but is missing',
    ],
    [
      "a factor of 0",
      { saetta: { ...Object(cfg.saetta), normalization: "scale", normalization_factor: 0 } },
      'cfg.json: "normalization_factor" must be above 0, but is 0',
    ],
    [
      "a decay of 1",
      { saetta: { ...Object(cfg.saetta), ema_decay: 1 } },
      'cfg.json: "ema_decay" must be between 0 and 1, but is 1',
    ],
  ])("with %s is refused", (_, change, message) => {
    const changed = JSON.parse(JSON.stringify({ ...cfg, ...change }));
    expect(() => parseDescription(changed, "cfg.json")).toThrow(message);
  });
});
