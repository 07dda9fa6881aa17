import { expect, it } from "vitest";
import { visible } from "./visible.ts";

it("shows what cannot be seen, and lets nothing turn the text around or obey it", () => {
  expect(visible("a\nb\tc\u001b[1m\u202edrow\u2066\u0085")).toBe("a⏎b⇥c·[1m·drow··");
  for (const code of [0x00, 0x0d, 0x7f, 0x9b, 0xad, 0x61c, 0x180e, 0x200b, 0x200c, 0x200d, 0x200e, 0x200f, 0x2028])
    expect([code, visible(`a${String.fromCodePoint(code)}b`)]).toEqual([code, "a·b"]);
  for (const code of [0x202a, 0x202e, 0x2060, 0x2064, 0x2066, 0x2069, 0x206f, 0x3164, 0xfeff, 0xe0001, 0xe007f, 0xd83d])
    expect([code, visible(`a${String.fromCodePoint(code)}b`)]).toEqual([code, "a·b"]);
});

it("leaves what can be seen", () => {
  for (const text of ["naïve 🦊 日本", "שלום", "السلام", "e\u0301", "❤\ufe0f", "\u00a0", "<0xE2>", "\ufffd"])
    expect(visible(text)).toBe(text);
});
