/**
 * The part of YAML that config.yaml of circuit-tracer needs: one mapping of names to text, numbers,
 * true, false and null, or to lists of these. Anything else is refused with its line.
 */

import { FormatError } from "../util/errors.ts";

export type YamlScalar = string | number | boolean | null;
export type YamlValue = YamlScalar | readonly YamlScalar[];

const ENTRY = /^([A-Za-z_][\w-]*):(?: +(.*))?$/;
const ITEM = /^ *- +(.+)$/;

/** `where` names the file in errors. */
export function parseYaml(text: string, where: string): ReadonlyMap<string, YamlValue> {
  const found = new Map<string, YamlValue>();
  let list: { readonly name: string; readonly items: YamlScalar[] } | undefined;
  for (const [i, raw] of text.split(/\r?\n/).entries()) {
    const line = withoutComment(raw).trimEnd();
    const refuse = (what: string): never => {
      throw new FormatError(`line ${i + 1}: ${what}`, { where });
    };
    if (line === "" || (i === 0 && line === "---")) continue;
    const item = ITEM.exec(line);
    if (item !== null) {
      if (list === undefined) return refuse("an item of no list");
      list.items.push(scalar(item[1]!, refuse));
      found.set(list.name, list.items);
      continue;
    }
    const [, name, value] = ENTRY.exec(line) ?? refuse("is not NAME: VALUE, which is all that is read");
    if (found.has(name!)) refuse(`${name} is there twice`);
    list = value === undefined ? { name: name!, items: [] } : undefined;
    found.set(name!, value === undefined ? null : listOrScalar(value, refuse));
  }
  return found;
}

/** Words that YAML has for other values than text. */
const WORDS = /^(?:null|true|false|yes|no|on|off|y|n)$/i;

/** A name with text or a number, as a line; text in the quotes of JSON, which YAML has too. */
export function yamlLine(name: string, value: string | number): string {
  const isPlain = typeof value === "number" || (/^[A-Za-z_]\w*$/.test(value) && !WORDS.test(value));
  return `${name}: ${isPlain ? value : JSON.stringify(value)}\n`;
}

/** "#" begins a comment at the start of a line or after a space, outside of quotes. */
function withoutComment(line: string): string {
  let quote: string | undefined;
  for (let at = 0; at < line.length; at++) {
    const char = line[at]!;
    if ((quote === '"' && char === "\\") || (quote === "'" && line.startsWith("''", at))) at++;
    else if (quote !== undefined) quote = char === quote ? undefined : quote;
    else if ((char === '"' || char === "'") && (at === 0 || line[at - 1] === " " || line[at - 1] === "[")) quote = char;
    else if (char === "#" && (at === 0 || line[at - 1] === " ")) return line.slice(0, at);
  }
  return line;
}

type Refuse = (what: string) => never;

function listOrScalar(text: string, refuse: Refuse): YamlValue {
  if (!text.startsWith("[")) return scalar(text, refuse);
  if (!text.endsWith("]")) return refuse("a list that does not end on its line");
  const inner = text.slice(1, -1).trim();
  return inner === "" ? [] : inner.split(",").map((each) => scalar(each.trim(), refuse));
}

function scalar(text: string, refuse: Refuse): YamlScalar {
  if (text.startsWith('"')) return doubleQuoted(text, refuse);
  if (text.startsWith("'")) {
    if (!/^'(?:[^']|'')*'$/.test(text)) return refuse("text whose quote does not end");
    return text.slice(1, -1).replaceAll("''", "'");
  }
  if (/^[[\]{}&*!|>%@`,]/.test(text) || text.includes(": ") || text.endsWith(":"))
    return refuse(`${JSON.stringify(text.slice(0, 40))} is more than text or a number`);
  if (["null", "~", "Null", "NULL"].includes(text)) return null;
  if (["true", "True", "TRUE"].includes(text)) return true;
  if (["false", "False", "FALSE"].includes(text)) return false;
  return /^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$/.test(text) ? Number(text) : text;
}

function doubleQuoted(text: string, refuse: Refuse): string {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "string") return value;
  } catch {
    // Said below.
  }
  return refuse("text in double quotes with something that is not read");
}
