import { describe, expect, it } from "vitest";
import type { TrainOptions } from "./config.ts";
import { alikeFrom, combinations, gridFromJson, listedIn } from "./sweep-options.ts";
import { memberNames } from "./train/sweep/members.ts";

describe("values that a flag lists", () => {
  it("are split where the option is one number or word", () => {
    expect(listedIn("k", "16,32,64")).toEqual(["16", "32", "64"]);
    expect(listedIn("latents", "4k, 16k")).toEqual(["4k", "16k"]);
    expect(listedIn("architecture", "topk,batchtopk")).toEqual(["topk", "batchtopk"]);
    expect(listedIn("mseScale", "auto,1")).toEqual(["auto", "1"]);
    expect(listedIn("seed", "0,1")).toEqual(["0", "1"]);
  });

  it("are one value where the option is a list or a text, is one for a sweep, or there is no second", () => {
    for (const [name, text] of [
      ["prefixes", "16,32"],
      ["excludeTokens", "start,2"],
      ["excludePositions", "0,1"],
      ["init", "runs/a,b"],
      ["engine", "cpu,cuda"],
      ["logEvery", "1,2"],
      ["k", "16"],
      ["k", "16,"],
    ] as const)
      expect([name, listedIn(name, text)]).toEqual([name, undefined]);
  });

  it("are combined, the last list fastest", () => {
    expect(combinations({ k: ["1", "2"], lr: [3, 4], prefixes: [5, 6], seed: 7 })).toEqual([
      { k: "1", lr: 3, prefixes: [5, 6], seed: 7 },
      { k: "1", lr: 4, prefixes: [5, 6], seed: 7 },
      { k: "2", lr: 3, prefixes: [5, 6], seed: 7 },
      { k: "2", lr: 4, prefixes: [5, 6], seed: 7 },
    ]);
    const many = Array.from({ length: 101 }, (_, i) => i);
    expect(() => combinations({ k: many, latents: many })).toThrow("a sweep trains at most 1000 autoencoders");
  });
});

describe("a grid file", () => {
  it("has the names of config files and flags, lists of values, and lists that are values", () => {
    const text = '[{"k": ["4", 8], "auxk_coef": 0}, {"architecture": "matryoshka", "prefixes": [4, 8], "clip": "1"}]';
    expect(gridFromJson(text, "grid.json")).toEqual([
      { k: 4, auxkCoef: 0 },
      { k: 8, auxkCoef: 0 },
      { architecture: "matryoshka", prefixes: [4, 8], clip: 1 },
    ]);
    expect(gridFromJson('[{"exclude-tokens": [0, 1]}]', "grid.json")).toEqual([{ excludeTokens: [0, 1] }]);
  });

  it.each([
    ["[", /^grid\.json: not valid JSON/],
    ["{}", "grid.json: must hold a JSON list of objects, one per autoencoder"],
    ["[]", "grid.json: must hold a JSON list of objects, one per autoencoder"],
    ["[{}, 3]", "grid.json, entry 2: must be an object of options"],
    ['[{"kk": 3}]', /^grid\.json, entry 1: unknown option kk/],
    ['[{"k": [1, -1]}]', /^grid\.json, entry 1: k must be a number above 0/],
  ])("is refused: %s", (text, message) => {
    expect(() => gridFromJson(text, "grid.json")).toThrow(message);
  });
});

it("--halve names options", () => {
  expect(alikeFrom("k,target-l0")).toEqual(["k", "targetL0"]);
  expect(alikeFrom("all")).toEqual([]);
  expect(() => alikeFrom("k,nothing")).toThrow("--halve names options, such as k,latents, or all");
  expect(() => alikeFrom("engine")).toThrow("--halve names options");
});

it("members are named by what differs, and by names that a file system takes", () => {
  const name = (...members: readonly TrainOptions[]) => memberNames(members);
  expect(name({ k: 1, lr: 3e-4, seed: 1 }, { k: 2, lr: 3e-4, seed: 1 })).toEqual(["k1", "k2"]);
  expect(name({ lr: 1e-7 }, { lr: 0.001 }, {})).toEqual(["lr1e-7", "lr0.001", "default"]);
  expect(name({ init: "../a/b c" }, { init: "x" })).toEqual(["init_.._a_b_c", "init_x"]);
  expect(name({ init: "a/b" }, { init: "a_b" })).toEqual(["init_a_b", "init_a_b+2"]);
  expect(name({ excludeTokens: "none" }, { excludeTokens: [0, 2] })).toEqual([
    "exclude_tokens_none",
    "exclude_tokens0+2",
  ]);
  expect(name({ shuffle: true }, { shuffle: false })).toEqual(["shuffle_true", "shuffle_false"]);
});
