/**
 * Mutations of JSON that mostly leave it JSON: other values, other names, repeated and missing
 * parts.
 */

import type { Rng } from "../../src/util/rng.ts";

const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|[[\]{},:]/g;

const NAMES = [
  "__proto__",
  "constructor",
  "prototype",
  "toString",
  "hasOwnProperty",
  "length",
  "",
  "then",
  "\u0000",
  "\u001b[31m",
  "../x",
  "🦊",
];

const VALUES = [
  "0",
  "-1",
  "-0",
  "1.5",
  "1e308",
  "1e999",
  "-1e999",
  "9007199254740991",
  "9007199254740993",
  "18446744073709551616",
  "4294967295",
  "4294967296",
  "2147483648",
  "16777215",
  "16777216",
  "1e-320",
  "true",
  "false",
  "null",
  '""',
  "[]",
  "{}",
  '{"__proto__":{"type":"BPE"}}',
  "[null]",
  "[[]]",
  "NaN",
  '"(a+)+$"',
  '"\\ud800"',
  `"${"a".repeat(100_000)}"`,
  `${"[".repeat(60)}${"]".repeat(60)}`,
  `${"[".repeat(70)}${"]".repeat(70)}`,
  `${"[".repeat(50_000)}${"]".repeat(50_000)}`,
  `${'{"a":'.repeat(20_000)}1${"}".repeat(20_000)}`,
  `[${"0,".repeat(10_000)}0]`,
];

export function jsonMutation(text: string, rng: Rng): readonly [text: string, words: string] {
  const tokens = Array.from(text.matchAll(TOKEN), ({ index, 0: token }) => ({ index, token }));
  const pick = (fits: (token: string) => boolean) => {
    const all = tokens.filter(({ token }) => fits(token));
    return all.length === 0 ? undefined : all[rng.below(all.length)]!;
  };
  const isValue = (token: string) => !/^[[\]{},:]$/.test(token);
  const kind = rng.below(8);
  if (kind <= 2) {
    const value = pick(isValue);
    if (value === undefined) return [text, "nothing"];
    const other = VALUES[rng.below(VALUES.length)]!;
    return [put(text, value, other), `${value.token.slice(0, 30)} at ${value.index} = ${other.slice(0, 30)}`];
  }
  if (kind === 3) {
    const name = pick((token) => token.startsWith('"'));
    if (name === undefined) return [text, "nothing"];
    const names = tokens.filter(({ token }) => token.startsWith('"'));
    const other =
      rng.below(2) === 0 ? JSON.stringify(NAMES[rng.below(NAMES.length)]) : names[rng.below(names.length)]!.token;
    return [put(text, name, other), `${name.token.slice(0, 30)} at ${name.index} = ${other.slice(0, 30)}`];
  }
  if (kind === 4) {
    const [a, b] = [pick(isValue), pick(isValue)];
    if (a === undefined || b === undefined) return [text, "nothing"];
    return [put(text, a, b.token), `the value at ${b.index} copied to ${a.index}`];
  }
  if (kind === 5) {
    const token = pick(() => true);
    if (token === undefined) return [text, "nothing"];
    return [put(text, token, ""), `${token.token.slice(0, 30)} at ${token.index} removed`];
  }
  if (kind === 6) {
    // A whole value, with what is nested in it, replaced by a small one or left out.
    const open = pick((token) => token === "{" || token === "[");
    if (open === undefined) return [text, "nothing"];
    const end = closing(tokens, open.index);
    const other = VALUES[rng.below(VALUES.length)]!;
    return [text.slice(0, open.index) + other + text.slice(end), `what opens at ${open.index} = ${other.slice(0, 30)}`];
  }
  const from = rng.below(tokens.length);
  const [first, last] = [tokens[from], tokens[Math.min(tokens.length - 1, from + 1 + rng.below(12))]];
  if (first === undefined || last === undefined) return [text, "nothing"];
  const piece = text.slice(first.index, last.index);
  return [
    text.slice(0, last.index) + piece + text.slice(last.index),
    `the ${piece.length} characters at ${first.index} twice`,
  ];
}

function put(text: string, { index, token }: { index: number; token: string }, other: string): string {
  return text.slice(0, index) + other + text.slice(index + token.length);
}

/** Past the bracket that closes the one at `index`. */
function closing(tokens: readonly { readonly index: number; readonly token: string }[], index: number): number {
  let depth = 0;
  for (const { index: at, token } of tokens) {
    if (at < index) continue;
    if (token === "{" || token === "[") depth++;
    if (token === "}" || token === "]") depth--;
    if (depth === 0) return at + 1;
  }
  return index + 1;
}
