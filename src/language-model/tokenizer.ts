/** A Hugging Face tokenizer.json, and the start token of its model. */

import { access, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { DeadlineError, within } from "../util/deadline.ts";
import { FormatError, messageOf, SaettaError } from "../util/errors.ts";
import { asObject, Fields, type Json, type JsonObject, readJsonFile } from "../util/json.ts";
import { type ByteTokens, readBytes, tokenBytes } from "./token-bytes.ts";

export interface Tokenizer {
  /** Absolute path of the tokenizer.json. */
  readonly path: string;
  /** One more than the highest token id. */
  readonly vocabSize: number;
  /**
   * The same without added tokens, such as a [PAD] that no text yields and for which a model need
   * have no embedding.
   */
  readonly textSize: number;
  /** The id of the token that starts every document. */
  readonly startToken: number;
  /** The ids of the text, without any token that the text does not hold. */
  encode(text: string): Int32Array;
  decode(ids: Int32Array | readonly number[]): string;
  /**
   * The readable text of each token, which joined are the decoded text: where several tokens make
   * one character, the last of them has it and the others have "". A byte that is part of no
   * character is "<0xE2>".
   */
  pieces(ids: Int32Array | readonly number[]): string[];
}

/** The largest tokenizer.json in use are some 35 MB. */
const MAX_BYTES = 256 * 1024 * 1024;
/** No embedding has more rows; bounds the tables that ids index. */
const MAX_ID = 2 ** 24;
/** Names under which models know the token that starts a text, the more telling ones first. */
const START_TOKENS = ["<|begin_of_text|>", "<s>", "<bos>", "[BOS]", "<|startoftext|>", "<|endoftext|>", "[CLS]"];
/**
 * Tokens that one character may take; past that the bytes are no character, and are shown as they
 * are.
 */
const MAX_HELD = 6;
/**
 * What a call may take: its regular expressions come from the file, and some never end. Far more
 * than any real tokenizer needs.
 */
const CALL_MS = 1000;
const CHARACTER_MS = 0.05;

/**
 * Reads a tokenizer.json, or the one in a folder, and the tokenizer_config.json next to it where
 * there is one. Throws FormatError when they are not that.
 */
export async function loadTokenizer(path: string): Promise<Tokenizer> {
  const isFolder = (await stat(path).catch(() => undefined))?.isDirectory() === true;
  const file = resolve(path, isFolder ? "tokenizer.json" : "");
  const json = new Fields(await readJsonFile(file, MAX_BYTES), "the file", file);
  const beside = join(dirname(file), "tokenizer_config.json");
  const hasConfig = await access(beside).then(
    () => true,
    () => false,
  );
  const config = hasConfig ? asObject(await readJsonFile(beside), "the file", beside) : {};
  const { vocabulary, added } = vocabularyOf(json);
  /** A call of the library, which trusts its file, for a text of so many characters or tokens. */
  const guarded = <T>(length: number, call: () => T): T => {
    try {
      return within(CALL_MS + length * CHARACTER_MS, call);
    } catch (cause) {
      if (cause instanceof SaettaError) throw cause;
      const what =
        cause instanceof DeadlineError ? `${length} characters or tokens ${cause.message}` : messageOf(cause);
      throw new FormatError(`not a tokenizer that can be used (${what})`, { where: file, cause });
    }
  };
  const library = guarded(vocabulary.length, () => new Library(json.object, config));
  const vocabSize = vocabulary.reduce((most, [, id]) => Math.max(most, id), -1) + 1;
  const textSize = vocabulary.reduce((most, [token, id]) => (added.has(token) ? most : Math.max(most, id)), -1) + 1;
  const startToken = guarded(1, () => findStartToken(new Map(vocabulary), library, config, file));

  const isToken = (id: number): boolean => Number.isInteger(id) && id >= 0 && id < vocabSize;
  if (!isToken(startToken))
    throw new FormatError(`the start token ${startToken} is not in a vocabulary of ${vocabSize}`, { where: file });

  const decode = (ids: Int32Array | readonly number[]): string => {
    const unknown = ids.find((id) => !isToken(id));
    if (unknown !== undefined) {
      throw new SaettaError(`there is no token ${unknown} in a vocabulary of ${vocabSize}`, {
        where: file,
        mend: "use the tokenizer of the model",
      });
    }
    if (ids.length === 0) return "";
    return library.decode(Array.from(ids), { skip_special_tokens: false, clean_up_tokenization_spaces: false });
  };
  const byteTokens = byteTokensOf(json.get("decoder"));
  let names: Map<number, string> | undefined;
  const bytesOf = (id: number): Uint8Array | undefined => {
    names ??= new Map(vocabulary.map(([token, each]) => [each, token]));
    return byteTokens && tokenBytes(names.get(id) ?? "", byteTokens);
  };
  return {
    path: file,
    vocabSize,
    textSize,
    startToken,
    encode(text) {
      const { ids } = guarded(text.length, () => library.encode(text, { add_special_tokens: false }));
      if (!ids.every(isToken))
        throw new SaettaError("the vocabulary has no token for some of the text", { where: file });
      return Int32Array.from(ids);
    },
    decode: (ids) => guarded(ids.length, () => decode(ids)),
    pieces: (ids) => guarded(ids.length, () => piecesOf(ids, decode, bytesOf)),
  };
}

function piecesOf(
  ids: Int32Array | readonly number[],
  decode: (ids: Int32Array | readonly number[]) => string,
  bytesOf: (id: number) => Uint8Array | undefined,
): string[] {
  // A token's text depends on the tokens before it (spaces, parts of characters), but not on those
  // before the last whole character.
  const pieces: string[] = [];
  let first = 0;
  let shown = 0;
  let before = "";
  for (let i = 0; i < ids.length; i++) {
    const text = decode(ids.slice(first, i + 1));
    const held = text.endsWith("\ufffd") && i < ids.length - 1 && i - shown + 1 < MAX_HELD;
    pieces.push(held ? "" : text.slice(before.length));
    if (held) continue;
    if (pieces[i]!.includes("\ufffd")) {
      const bytes = Array.from(ids.slice(shown, i + 1), bytesOf).filter((each) => each !== undefined);
      if (bytes.length > 0) pieces.splice(shown, bytes.length, ...readBytes(bytes));
    }
    first = shown;
    shown = i + 1;
    before = decode(ids.slice(first, shown));
  }
  return pieces;
}

/** How the vocabulary writes bytes, by its decoder; undefined where it has none. */
function byteTokensOf(decoder: Json | undefined): ByteTokens | undefined {
  const text = JSON.stringify(decoder ?? null);
  if (text.includes('"ByteLevel"')) return "byte-level";
  return text.includes('"ByteFallback"') ? "byte-fallback" : undefined;
}

/**
 * Every token with its id, and which of them were added to the vocabulary. Throws FormatError when
 * an id is not one.
 */
function vocabularyOf(json: Fields): {
  readonly vocabulary: readonly [string, number][];
  readonly added: ReadonlySet<string>;
} {
  const { vocab } = json.fields("model").object;
  const tokens: [string, Json | undefined][] = Array.isArray(vocab)
    ? vocab.map((entry: Json, id) => [String(Array.isArray(entry) ? entry[0] : entry), id])
    : Object.entries(asObject(vocab, '"vocab"', json.where));
  const entries = json.get("added_tokens") ?? [];
  if (!Array.isArray(entries)) throw new FormatError('"added_tokens" is not a list', { where: json.where });
  const added = new Set<string>();
  for (const entry of entries) {
    const token = new Fields(entry, "an added token", json.where);
    tokens.push([token.string("content"), token.get("id")]);
    added.add(token.string("content"));
  }
  const vocabulary = tokens.map(([token, id]): [string, number] => {
    if (typeof id === "number" && Number.isInteger(id) && id >= 0 && id < MAX_ID) return [token, id];
    throw new FormatError(`the token ${JSON.stringify(token.slice(0, 40))} has no valid id`, { where: json.where });
  });
  return { vocabulary, added };
}

/**
 * The token that starts a text: bos_token of tokenizer_config.json; else the token that the
 * tokenizer itself puts before a text; else the first of START_TOKENS in the vocabulary.
 */
function findStartToken(
  vocabulary: ReadonlyMap<string, number>,
  library: Library,
  config: JsonObject,
  file: string,
): number {
  const given = config.bos_token;
  const named = typeof given === "string" ? given : given && asObject(given, '"bos_token"', file).content;
  if (typeof named === "string") {
    const id = vocabulary.get(named);
    if (id !== undefined) return id;
    throw new FormatError(`the bos_token '${named}' of tokenizer_config.json is not in the vocabulary`, {
      where: file,
    });
  }
  const bare = library.encode("a", { add_special_tokens: false }).ids;
  const whole = library.encode("a", { add_special_tokens: true }).ids;
  if (whole.length > bare.length && whole[0] !== undefined && whole[0] !== bare[0]) return whole[0];
  for (const name of START_TOKENS) {
    const id = vocabulary.get(name);
    if (id !== undefined) return id;
  }
  throw new SaettaError("the tokenizer has no start token", {
    where: file,
    mend: 'put {"bos_token": "..."} with the token that the model was trained to see first into tokenizer_config.json beside it',
  });
}
