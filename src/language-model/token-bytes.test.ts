import { expect, it } from "vitest";
import { readBytes, tokenBytes } from "./token-bytes.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);

it("knows the bytes of tokens, as GPT-2 and as SentencePiece write them", () => {
  expect(tokenBytes("Ġthe", "byte-level")).toEqual(utf8(" the"));
  expect(tokenBytes("âĢ", "byte-level")).toEqual(Uint8Array.of(0xe2, 0x80));
  expect(tokenBytes("ĊÃ©Ń", "byte-level")).toEqual(Uint8Array.of(0x0a, 0xc3, 0xa9, 0xad));
  expect(tokenBytes("<|日本|>", "byte-level")).toEqual(utf8("<|日本|>")); // an added token
  expect(tokenBytes("<0xE2>", "byte-fallback")).toEqual(Uint8Array.of(0xe2));
  expect(tokenBytes("<0xE2>", "byte-level")).toEqual(utf8("<0xE2>"));
  expect(tokenBytes("▁thé", "byte-fallback")).toEqual(utf8(" thé"));
});

it("gives a character to the token of its last byte, and shows what is part of none", () => {
  const fox = utf8("🦊");
  expect(readBytes([fox.subarray(0, 2), fox.subarray(2)])).toEqual(["", "🦊"]);
  expect(readBytes([Uint8Array.of(0xe2)])).toEqual(["<0xE2>"]);
  expect(readBytes([Uint8Array.of(0x20, 0xe2, 0x80), utf8("a")])).toEqual([" <0xE2><0x80>", "a"]);
  expect(readBytes([Uint8Array.of(0xe2), utf8("é"), Uint8Array.of(0xff, 0x0a)])).toEqual(["<0xE2>", "é", "<0xFF>\n"]);
  // A character that is U+FFFD in the text stays; surrogates and overlong forms are none.
  expect(readBytes([utf8("\ufffd\ufeff")])).toEqual(["\ufffd\ufeff"]);
  expect(readBytes([Uint8Array.of(0xed, 0xa0, 0x80)])).toEqual(["<0xED><0xA0><0x80>"]);
  expect(readBytes([Uint8Array.of(0xc0, 0xaf)])).toEqual(["<0xC0><0xAF>"]);
  expect(readBytes([])).toEqual([]);
});
