/** Tokens that are parts of characters: their bytes, and what a reader sees of them. */

/**
 * GPT-2 writes each byte as a character: printable ones as themselves, the others as the characters
 * from 256 on.
 */
const BYTE_OF: ReadonlyMap<string, number> = byteTable();

function byteTable(): Map<string, number> {
  const table = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const isPrintable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    table.set(String.fromCodePoint(isPrintable ? byte : next++), byte);
  }
  return table;
}

/**
 * How a tokenizer writes bytes in its vocabulary: each as a character of GPT-2's table, or those of
 * unknown characters as "<0xE2>".
 */
export type ByteTokens = "byte-level" | "byte-fallback";

/** The bytes of a token as it is in the vocabulary. */
export function tokenBytes(token: string, kind: ByteTokens): Uint8Array {
  const fallback = kind === "byte-fallback" ? /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1] : undefined;
  if (fallback !== undefined) return Uint8Array.of(Number.parseInt(fallback, 16));
  const bytes = kind === "byte-level" ? Array.from(token, (char) => BYTE_OF.get(char)) : [undefined];
  const known = bytes.filter((byte) => byte !== undefined);
  // An added token, or one that is a text.
  return known.length === bytes.length
    ? Uint8Array.from(known)
    : new TextEncoder().encode(token.replaceAll("\u2581", " "));
}

/**
 * The text of each of some tokens in a row: a character is that of the token with its last byte, a
 * byte that is part of no character is "<0xE2>".
 */
export function readBytes(tokens: readonly Uint8Array[]): string[] {
  const texts = tokens.map(() => "");
  const bytes = tokens.flatMap((token, owner) => Array.from(token, (byte) => ({ byte, owner })));
  for (let at = 0; at < bytes.length; ) {
    const char = characterAt(Uint8Array.from(bytes.slice(at, at + 4), ({ byte }) => byte));
    const { byte, owner } = bytes[at + (char?.length ?? 1) - 1]!;
    texts[owner] += char?.text ?? `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
    at += char?.length ?? 1;
  }
  return texts;
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * The character that the bytes begin with, and how many of them it takes; undefined where they
 * begin with none.
 */
function characterAt(bytes: Uint8Array): { readonly text: string; readonly length: number } | undefined {
  const first = bytes[0]!;
  const length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (length > bytes.length) return undefined;
  try {
    return { text: UTF8.decode(bytes.subarray(0, length)), length };
  } catch {
    return undefined;
  }
}
