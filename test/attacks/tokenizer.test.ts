import { describe, expect, it } from "vitest";
import { loadTokenizer } from "../../src/language-model/tokenizer.ts";
import { place, refusal } from "./attack.ts";

type Parts = Readonly<Record<string, unknown>>;

/** A tokenizer.json with these parts in place of its own. */
function file(parts: Parts, model: Parts = {}): string {
  return JSON.stringify({
    version: "1.0",
    added_tokens: [{ id: 0, content: "<s>", special: true }],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    model: { type: "BPE", vocab: { "<s>": 0, a: 1, b: 2 }, merges: [], ...model },
    ...parts,
  });
}

const split = (regex: string): Parts => ({
  pre_tokenizer: { type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false },
});

async function use(path: string): Promise<void> {
  const tokenizer = await loadTokenizer(path);
  tokenizer.decode(tokenizer.encode(`${"a".repeat(64)}b`));
}

describe("a tokenizer.json is refused", () => {
  it.each<[string, string, string]>([
    ["that is a list", "[]", "FILE: the file is not a JSON object"],
    ["without a model", "{}", 'FILE: "model" is not a JSON object'],
    ["with a number for a vocabulary", file({}, { vocab: 7 }), 'FILE: "vocab" is not a JSON object'],
    ["with a text for an id", file({}, { vocab: { a: "0" } }), 'FILE: the token "a" has no valid id'],
    [
      "with an id that no table can have",
      file({}, { vocab: { a: 4_294_967_295 } }),
      'FILE: the token "a" has no valid id',
    ],
    ["with a negative id", file({}, { vocab: { a: -1 } }), 'FILE: the token "a" has no valid id'],
    ["with an infinite id", file({}).replace('"b":2', '"b":1e999'), 'FILE: the token "b" has no valid id'],
    ["with added tokens that are no list", file({ added_tokens: {} }), 'FILE: "added_tokens" is not a list'],
    ["with an added token that is none", file({ added_tokens: [null] }), "FILE: an added token is not a JSON object"],
    [
      "with a vocabulary of the name __proto__ only",
      file({}, { vocab: undefined }).replace('"merges"', '"__proto__":{"vocab":{"a":0}},"merges"'),
      'FILE: "vocab" is not a JSON object',
    ],
    [
      "nested without end",
      `{"model":${'{"a":'.repeat(50_000)}1${"}".repeat(50_000)}}`,
      expect.stringMatching(/^FILE: JSON nested deeper than 64 /) as string,
    ],
    [
      "with a part of unknown type",
      file({ decoder: { type: "Sequence", decoders: [null] } }),
      expect.stringMatching(/^FILE: not a tokenizer that can be used \(/) as string,
    ],
    [
      "with a part that fails when it is used",
      file({
        decoder: {
          type: "Sequence",
          decoders: [{ type: "Sequence", decoders: [{ type: "Strip", content: " ", start: 1, stop: 0 }, null] }],
        },
      }),
      expect.stringMatching(/^FILE: not a tokenizer that can be used \(/) as string,
    ],
    [
      "with an expression that is none",
      file(split("(a")),
      expect.stringMatching(/^FILE: not a tokenizer that can be used \(Invalid regular expression/) as string,
    ],
    [
      "with an expression that never ends",
      file(split("(a+)+c")),
      expect.stringMatching(
        /^FILE: not a tokenizer that can be used \(65 characters or tokens took more than [\d.]+ ms\)$/,
      ) as string,
    ],
    [
      "with a normaliser that never ends",
      file({ normalizer: { type: "Replace", pattern: { Regex: "(a|a)*c" }, content: "" } }),
      expect.stringMatching(
        /^FILE: not a tokenizer that can be used \(65 characters or tokens took more than /,
      ) as string,
    ],
    [
      "with a start token that it has not",
      file(
        {
          added_tokens: [],
          post_processor: {
            type: "TemplateProcessing",
            single: [{ SpecialToken: { id: "x", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
            pair: [],
            special_tokens: { x: { id: "x", ids: [1e300], tokens: ["x"] } },
          },
        },
        { vocab: { a: 0 } },
      ),
      expect.stringMatching(/^FILE: /) as string,
    ],
  ])("%s", async (_, text, line) => {
    expect(await refusal(place("tokenizer.json", text), use)).toEqual(line);
  });

  it("never pollutes the prototype of all objects", async () => {
    const path = place(
      "tokenizer.json",
      file({}, { vocab: { "<s>": 0, a: 1, b: 2 } }).replace('"a":1', '"__proto__":1'),
    );
    await use(path).catch(() => undefined);
    expect(Object.keys(Object.prototype)).toEqual([]);
  });
});
