/** The pages of the documentation: their links, headings, code and tables. */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";

/** Every Markdown file that users or contributors read, from the root of the repository. */
export const PAGES = listed("*.md").filter((path) => !/^(test|bench|src|examples)\//.test(path));

/** Of these also what they name must be there; the others tell of what was. */
export const PRESENT = PAGES.filter((path) => path !== "CHANGELOG.md" && !path.startsWith("docs/decisions/"));

/** Files of the repository that match a pattern of git, committed or not. */
export function listed(...patterns: readonly string[]): string[] {
  return execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard", ...patterns], {
    encoding: "utf8",
  })
    .split("\n")
    .filter((path) => path !== "")
    .toSorted((a, b) => (a < b ? -1 : 1));
}

export const textOfPage = (path: string): string => readFileSync(path, "utf8");

const FENCE = /^ *```(\w*)\n(.*?)^ *```$/gms;

/** What is in fences, and in which language. */
export function blocksOf(text: string): { readonly language: string; readonly code: string }[] {
  return Array.from(text.matchAll(FENCE), ([, language, code]) => ({ language: language!, code: code! }));
}

/** Text without fences. */
export const prose = (text: string): string => text.replace(FENCE, "");

/** `what is in backticks`, outside of fences. */
export function spansOf(text: string): string[] {
  return Array.from(prose(text).matchAll(/`([^`\n]+)`/g), ([, span]) => span!);
}

/** Where links and pictures go, other than to other sites. */
export function linksOf(text: string): string[] {
  const plain = prose(text).replace(/`[^`\n]+`/g, "");
  const all = [...plain.matchAll(/\]\(([^()\s]+)\)/g), ...plain.matchAll(/(?:src|href)="([^"]+)"/g)];
  return all.map(([, to]) => to!).filter((to) => !/^(https?|mailto):/.test(to));
}

/** Level and text of each heading. */
export function headingsOf(text: string): { readonly level: number; readonly title: string }[] {
  return Array.from(prose(text).matchAll(/^(#{1,6}) (.*)$/gm), ([, hashes, title]) => ({
    level: hashes!.length,
    title: title!,
  }));
}

const script = (await import(resolve("scripts/anchor.mjs"))) as { anchorOf: (title: string) => string };

/** A heading's anchor, as GitHub and the site make it. */
export const { anchorOf } = script;

/** Cells of each row of each table. */
export function tablesOf(text: string): string[][][] {
  const tables: string[][][] = [];
  let table: string[][] | undefined;
  for (const line of prose(text).split("\n")) {
    if (!line.startsWith("|")) {
      table = undefined;
      continue;
    }
    if (table === undefined) {
      table = [];
      tables.push(table);
    }
    table.push(
      line
        .slice(1, line.lastIndexOf("|"))
        .split(/(?<!\\)\|/)
        .map((cell) => cell.trim()),
    );
  }
  return tables;
}
