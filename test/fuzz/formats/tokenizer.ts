/**
 * tokenizer.json of each kind of model with each kind of part, and the tokenizer_config.json beside
 * it.
 */

import { dirname, join } from "node:path";
import { loadTokenizer } from "../../../src/language-model/tokenizer.ts";
import { tinyTokenizer } from "../../support/onnx.ts";
import { type FuzzFormat, jsonBoundaries, type Sample, WHOLE_FILE } from "../format.ts";

const added = (id: number, content: string) => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
});

const WORD_PIECE = {
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens: [added(0, "[PAD]"), added(1, "[UNK]"), added(2, "[CLS]"), added(3, "[SEP]")],
  normalizer: {
    type: "BertNormalizer",
    clean_text: true,
    handle_chinese_chars: true,
    strip_accents: null,
    lowercase: true,
  },
  pre_tokenizer: { type: "BertPreTokenizer" },
  post_processor: {
    type: "TemplateProcessing",
    single: [
      { SpecialToken: { id: "[CLS]", type_id: 0 } },
      { Sequence: { id: "A", type_id: 0 } },
      { SpecialToken: { id: "[SEP]", type_id: 0 } },
    ],
    pair: [],
    special_tokens: {
      "[CLS]": { id: "[CLS]", ids: [2], tokens: ["[CLS]"] },
      "[SEP]": { id: "[SEP]", ids: [3], tokens: ["[SEP]"] },
    },
  },
  decoder: { type: "WordPiece", prefix: "##", cleanup: true },
  model: {
    type: "WordPiece",
    unk_token: "[UNK]",
    continuing_subword_prefix: "##",
    max_input_chars_per_word: 100,
    vocab: { "[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, a: 4, the: 5, "##s": 6, cat: 7, ".": 8 },
  },
};

const UNIGRAM = {
  version: "1.0",
  added_tokens: [added(0, "<s>"), added(1, "<unk>")],
  normalizer: {
    type: "Sequence",
    normalizers: [
      { type: "NFKC" },
      { type: "Lowercase" },
      { type: "Replace", pattern: { Regex: " {2,}" }, content: " " },
    ],
  },
  pre_tokenizer: { type: "Metaspace", replacement: "▁", add_prefix_space: true, prepend_scheme: "always" },
  post_processor: {
    type: "RobertaProcessing",
    sep: ["<s>", 0],
    cls: ["<s>", 0],
    trim_offsets: true,
    add_prefix_space: true,
  },
  decoder: {
    type: "Sequence",
    decoders: [{ type: "Metaspace", replacement: "▁", add_prefix_space: true }, { type: "Fuse" }],
  },
  model: {
    type: "Unigram",
    unk_id: 1,
    byte_fallback: false,
    vocab: [
      ["<s>", 0],
      ["<unk>", 0],
      ["▁", -2],
      ["▁a", -3],
      ["t", -3.5],
      ["h", -4],
      ["e", -4],
      ["▁the", -5],
    ],
  },
};

const SPLIT = {
  version: "1.0",
  added_tokens: [{ ...added(0, "<|endoftext|>"), lstrip: true }],
  normalizer: {
    type: "Sequence",
    normalizers: [{ type: "NFC" }, { type: "Strip", strip_left: true, strip_right: true }, { type: "StripAccents" }],
  },
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [
      {
        type: "Split",
        pattern: { Regex: "(?i:'s|'t)|\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+" },
        behavior: "Isolated",
        invert: false,
      },
      { type: "Digits", individual_digits: true },
      { type: "ByteLevel", add_prefix_space: false, use_regex: false },
    ],
  },
  post_processor: { type: "Sequence", processors: [{ type: "ByteLevel", trim_offsets: false }] },
  decoder: {
    type: "Sequence",
    decoders: [{ type: "ByteFallback" }, { type: "ByteLevel" }, { type: "Strip", content: " ", start: 1, stop: 0 }],
  },
  model: {
    type: "BPE",
    dropout: null,
    unk_token: null,
    fuse_unk: false,
    byte_fallback: true,
    ignore_merges: false,
    vocab: { "<|endoftext|>": 0, t: 1, h: 2, e: 3, th: 4, the: 5, Ġ: 6, Ġthe: 7, a: 8 },
    merges: [
      ["t", "h"],
      ["th", "e"],
      ["Ġ", "the"],
    ],
  },
};

const CONFIG = {
  tokenizer_class: "GPT2Tokenizer",
  bos_token: { content: "<|endoftext|>", lstrip: false },
  clean_up_tokenization_spaces: false,
  model_max_length: 1e30,
};

const FILE = "tokenizer.json";

function samples(): Sample[] {
  const of = (name: string, json: unknown): Sample => ({ name, file: FILE, bytes: Buffer.from(JSON.stringify(json)) });
  return [
    of("tiny", JSON.parse(tinyTokenizer(["<s>", "a", "b", "c", "Ġ"]))),
    of("wordpiece", WORD_PIECE),
    of("unigram", UNIGRAM),
    of("split", SPLIT),
    {
      name: "config",
      file: "tokenizer_config.json",
      bytes: Buffer.from(JSON.stringify(CONFIG)),
      beside: { [FILE]: JSON.stringify(SPLIT) },
    },
  ];
}

const TEXT = "The cats sat, the naïve 日本 🦊 said 12345 ... 'tis\n\n  a test.";

export const tokenizer: FuzzFormat = {
  name: "tokenizer",
  samples,
  boundaries: (bytes) => jsonBoundaries(bytes),
  json: WHOLE_FILE,
  async read(path) {
    const loaded = await loadTokenizer(join(dirname(path), FILE));
    const ids = loaded.encode(TEXT);
    loaded.decode(ids);
    loaded.pieces(ids);
    loaded.encode("");
    loaded.encode("a".repeat(2000));
    loaded.decode([loaded.startToken]);
  },
};
