/** docs/maths.md names functions, operations and tests; its Chinese version says the same. */

import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import * as maths from "../../src/sae/math.ts";
import { blocksOf, headingsOf, linksOf, prose, tablesOf, textOfPage } from "./pages.ts";

const PAGE = textOfPage("docs/maths.md");

/** The names in backticks of each list item that begins with `label`. */
function named(label: string): string[][] {
  return Array.from(prose(PAGE).matchAll(new RegExp(`^- ${label}: (.*)$`, "gm")), ([, names]) =>
    Array.from(names!.matchAll(/`([^`]+)`/g), ([, name]) => name!),
  );
}

describe("docs/maths.md", () => {
  it("has E1 to E12 and thirteen steps back, each with function, operation and proof", () => {
    const steps = headingsOf(PAGE).filter(({ level }) => level === 3);
    const numbers = steps.map(({ title }) => title.split(" ")[0]!);
    const counted = (count: number, prefix = "") => Array.from({ length: count }, (_, i) => `${prefix}${i + 1}`);
    expect(numbers.slice(0, 25)).toEqual([...counted(12, "E"), ...counted(13)]);
    for (const label of ["Function", "Operation", "Proof"]) {
      expect(named(label)).toHaveLength(steps.length);
      expect(named(label).every((names) => names.length > 0)).toBe(true);
    }
  });

  it("names functions that are there", () => {
    const missing = named("Function")
      .flat()
      .filter((name) => typeof (maths as unknown as Record<string, unknown>)[name] !== "function");
    expect(missing).toEqual([]);
  });

  it("names operations of an engine", () => {
    const engine = readFileSync("src/engine/engine.ts", "utf8");
    const missing = named("Operation")
      .flat()
      .filter((name) => !new RegExp(`^  ${name}\\(`, "m").test(engine));
    expect(missing).toEqual([]);
  });

  it("names tests that are there", () => {
    const proofs = [
      ...named("Proof").flat(),
      ...Array.from(PAGE.matchAll(/\| `(test\/[^`]+)` \|$/gm), ([, path]) => path!),
    ];
    expect(proofs.filter((path) => !existsSync(path))).toEqual([]);
  });

  it("has a row per fault that is tested under this number", () => {
    for (const [number, , , proof] of tablesOf(PAGE).at(-1)!.slice(2)) {
      if (number!.includes(",")) continue;
      expect(readFileSync(proof!.replaceAll("`", ""), "utf8"), number).toContain(`"row ${number}`);
    }
  });
});

/** What a translation must have in common with its page. */
function bones(text: string) {
  return {
    headings: headingsOf(text).map(({ level, title }) => [level, title.match(/^(E?\d+ [①-⑳])/)?.[1] ?? ""]),
    pictures: linksOf(text).filter((link) => /\.(png|svg)$/.test(link)),
    formulas: blocksOf(text)
      .filter(({ language }) => language !== "")
      .map(({ code }) => code.replace(/ *#.*$/gm, "")),
    tables: tablesOf(text).map((rows) => [rows.length, rows[0]!.length]),
    figures: tablesOf(text).map((rows) => rows.flat().flatMap((cell) => cell.match(/\d+([.,]\d+)*/g) ?? [])),
    names: [...prose(text).matchAll(/`([\w./-]+)`/g)].map(([, name]) => name!).toSorted((a, b) => (a < b ? -1 : 1)),
  };
}

it.each([
  ["docs/maths.md", "docs/maths.zh.md"],
  ["README.md", "README.zh.md"],
])("%s and %s have the same headings, figures, formulas and names", (page, translation) => {
  expect(bones(textOfPage(translation))).toEqual(bones(textOfPage(page)));
});
