import { describe, expect, it } from "vitest";
import { FormatError } from "../util/errors.ts";
import { parseYaml, yamlLine } from "./yaml.ts";

const parsed = (text: string) => Object.fromEntries(parseYaml(text, "config.yaml"));

describe("the YAML of config.yaml", () => {
  it("is names with text, numbers, true, false, null and lists of them", () => {
    const text = [
      "---",
      "# all that circuit-tracer writes",
      "model_kind: transcoder_set",
      'model_name: "google/gemma-2-2b" # quoted',
      "hook: 'it''s # none'",
      "url: hf://a/b?revision=1#x",
      "k: 32",
      "scale: -1.5e-3",
      "yes_: true",
      "nothing: ~",
      "empty:",
      "scan: [a, 'b', 3]",
      "transcoders:",
      "  - hf://x/layer_0.safetensors",
      '- "y"',
      "last: 0",
    ].join("\r\n");
    expect(parsed(text)).toEqual({
      model_kind: "transcoder_set",
      model_name: "google/gemma-2-2b",
      hook: "it's # none",
      url: "hf://a/b?revision=1#x",
      ...{ k: 32, scale: -0.0015, yes_: true, nothing: null, empty: null },
      ...{ scan: ["a", "b", 3], transcoders: ["hf://x/layer_0.safetensors", "y"], last: 0 },
    });
  });

  it("is read as it was written", () => {
    for (const text of ["plain", "a: b", "# no", "null_", "8", "it's", 'a "b"', "", " x ", "é", "- a"])
      expect(parsed(yamlLine("a", text))).toEqual({ a: text });
    expect(parsed(yamlLine("k", 12))).toEqual({ k: 12 });
    // Words that YAML has for other values.
    for (const text of ["null", "true", "yes", "no", "on", "off", "Null"])
      expect(yamlLine("a", text)).toBe(`a: "${text}"\n`);
  });

  it.each([
    ["a: 1\na: 2", /config\.yaml: line 2: a is there twice/],
    ["a", /line 1: is not NAME: VALUE/],
    ["a:b", /line 1: is not NAME: VALUE/],
    ["  a: 1", /line 1: is not NAME: VALUE/],
    ["a: 1\n- b", /line 2: an item of no list/],
    ["a: {b: 1}", /line 1: "\{b: 1\}" is more than text or a number/],
    ["a: *b", /is more than text or a number/],
    ["a: !!python/object:os.system x", /is more than text or a number/],
    ["a: |", /is more than text or a number/],
    ["a: [1", /a list that does not end on its line/],
    ["a: [[1]]", /is more than text or a number/],
    ['a: "b', /text in double quotes/],
    ["a: 'b", /text whose quote does not end/],
    ["a: b: c", /is more than text or a number/],
  ])("refuses %j", (text, message) => {
    expect(() => parseYaml(text, "config.yaml")).toThrow(FormatError);
    expect(() => parseYaml(text, "config.yaml")).toThrow(message);
  });

  it("takes time in proportion to its length", () => {
    const long = "'".repeat(200_000);
    expect(() => parseYaml(`a: ${long}x`, "config.yaml")).toThrow(FormatError);
    expect(parsed(`a: ${"b ".repeat(200_000)}`).a).toHaveLength(399_999);
  });
});
