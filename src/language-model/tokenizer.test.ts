import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { tinyTokenizer } from "../../test/support/onnx.ts";
import { loadTokenizer } from "./tokenizer.ts";

const EXAMPLE = "examples/brown-gpt/tokenizer.json";
const folder = mkdtempSync(join(tmpdir(), "saetta-tokenizer-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A folder with these files; returns the path of its tokenizer.json. */
function write(name: string, tokenizer: string, config?: object): string {
  const at = mkdtempSync(join(folder, name));
  writeFileSync(join(at, "tokenizer.json"), tokenizer);
  if (config !== undefined) writeFileSync(join(at, "tokenizer_config.json"), JSON.stringify(config));
  return join(at, "tokenizer.json");
}

describe("the example's tokenizer", () => {
  it("encodes and decodes any text to itself", async () => {
    const tokenizer = await loadTokenizer(EXAMPLE);
    expect(tokenizer).toMatchObject({ path: resolve(EXAMPLE), vocabSize: 8192, startToken: 0 });
    for (const text of [
      "The Fulton County Grand Jury said Friday .",
      "naïve café, 日本語 and 🦊",
      " two  spaces\nand a line",
    ]) {
      const ids = tokenizer.encode(text);
      expect(ids).toBeInstanceOf(Int32Array);
      expect(tokenizer.decode(ids)).toBe(text);
    }
    expect(tokenizer.encode("").length).toBe(0);
    expect(tokenizer.decode([])).toBe("");
  });

  it("shows each token as readable text, whole characters at their last token", async () => {
    const tokenizer = await loadTokenizer(EXAMPLE);
    expect(tokenizer.pieces([0, ...tokenizer.encode("the grand jury")])).toEqual([
      "<|endoftext|>",
      "the",
      " grand",
      " jury",
    ]);
    const text = "a 🦊 in 日本, café";
    const ids = tokenizer.encode(text);
    const pieces = tokenizer.pieces(ids);
    expect(pieces).toHaveLength(ids.length);
    expect(pieces.join("")).toBe(text);
    expect(pieces).toContain("");
    expect(pieces.some((piece) => piece.includes("\ufffd"))).toBe(false);
  });

  it("shows what is left of a character that was cut in two, and goes on", async () => {
    const tokenizer = await loadTokenizer(EXAMPLE);
    const ids = tokenizer.encode("🦊 sat");
    expect(tokenizer.pieces(ids.subarray(1)).join("")).toMatch(/^(<0x[89AB][0-9A-F]>)+ sat$/);
    expect(tokenizer.pieces(ids.subarray(0, 1)).join("")).toMatch(/^<0xF0>/);
    expect(tokenizer.pieces([])).toEqual([]);
  });

  it("refuses ids that it does not have", async () => {
    const tokenizer = await loadTokenizer(EXAMPLE);
    expect(() => tokenizer.decode([1, 8192])).toThrow(/no token 8192 in a vocabulary of 8192/);
    expect(() => tokenizer.pieces(Int32Array.of(-1))).toThrow(/no token -1/);
  });
});

describe("the start token", () => {
  it("is the bos_token of tokenizer_config.json before anything else", async () => {
    const tokens = ["<s>", "<mine>", "a"];
    expect((await loadTokenizer(write("named", tinyTokenizer(tokens), { bos_token: "<mine>" }))).startToken).toBe(1);
    expect(
      (await loadTokenizer(write("object", tinyTokenizer(tokens), { bos_token: { content: "<mine>" } }))).startToken,
    ).toBe(1);
    expect((await loadTokenizer(write("null", tinyTokenizer(tokens), { bos_token: null }))).startToken).toBe(0);
    await expect(loadTokenizer(write("absent", tinyTokenizer(tokens), { bos_token: "<x>" }))).rejects.toThrow(
      /bos_token '<x>' .* not in the vocabulary/,
    );
  });

  it("is what the tokenizer itself puts first, before a well-known name", async () => {
    const json = JSON.parse(tinyTokenizer(["<s>", "<first>", "a"])) as Record<string, unknown>;
    const special = { id: "<first>", ids: [1], tokens: ["<first>"] };
    const single = [{ SpecialToken: { id: "<first>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }];
    json.post_processor = { type: "TemplateProcessing", single, pair: single, special_tokens: { "<first>": special } };
    const tokenizer = await loadTokenizer(write("template", JSON.stringify(json)));
    expect(tokenizer.startToken).toBe(1);
    expect([...tokenizer.encode("a")]).toEqual([2]);
  });

  it("is missed in one line that says what to do", async () => {
    const path = write("none", tinyTokenizer(["a", "b"]));
    await expect(loadTokenizer(path)).rejects.toThrow(/has no start token; put \{"bos_token"/);
  });
});

describe("a file that is no tokenizer", () => {
  it.each([
    ["text", "hello", /not valid JSON/],
    ["a list", "[]", /not a JSON object/],
    ["no model", "{}", /"model" is not a JSON object/],
    [
      "an unknown part",
      tinyTokenizer(["<s>", "a"]).replace('"decoder":{"type":"ByteLevel"}', '"decoder":{"type":"X"}'),
      /not a tokenizer that can be used/,
    ],
    ["a negative id", tinyTokenizer(["<s>", "a"]).replace('"a":1', '"a":-1'), /the token "a" has no valid id/],
    [
      "an id beyond all tables",
      tinyTokenizer(["<s>", "a"]).replace('"a":1', '"a":4000000000'),
      /the token "a" has no valid id/,
    ],
  ])("refuses %s", async (_name, content, message) => {
    await expect(loadTokenizer(write("bad", content))).rejects.toThrow(message);
  });

  it("refuses one that is not there", async () => {
    await expect(loadTokenizer(join(folder, "none", "tokenizer.json"))).rejects.toThrow(
      /tokenizer\.json: the file is missing/,
    );
  });
});
