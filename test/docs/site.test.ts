/** The site: every page is in it, and every link and picture of it is there. */

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { PAGES } from "./pages.ts";

const { buildSite } = (await import(resolve("scripts/site.mjs"))) as { buildSite: (folder: string) => string[] };

const folder = mkdtempSync(join(tmpdir(), "saetta-site-"));
let pages: string[];
beforeAll(() => {
  pages = buildSite(folder);
});
afterAll(() => rmSync(folder, { recursive: true }));

const textOf = (page: string): string => readFileSync(join(folder, page), "utf8");
const linksOf = (page: string): string[] =>
  Array.from(textOf(page).matchAll(/(?:href|src)="([^"]+)"/g), ([, to]) => to!).filter((to) => !/^https?:/.test(to));

it("has every page of the documentation", () => {
  const html = PAGES.map((page) => page.replace(/(^|\/)README\.md$/, "$1index.html").replace(/\.md$/, ".html"));
  expect(html.filter((page) => !pages.includes(page))).toEqual([]);
});

it("has links and pictures that are there", () => {
  const broken = pages.flatMap((page) =>
    linksOf(page)
      .filter((link) => {
        const [to, anchor] = link.split("#") as [string, string?];
        const target = to === "" ? page : join(dirname(page), to);
        if (!existsSync(join(folder, target))) return true;
        return (
          anchor !== undefined && target.endsWith(".html") && !textOf(target).includes(`id="${decodeURI(anchor)}"`)
        );
      })
      .map((link) => `${page}: ${link}`),
  );
  expect(broken).toEqual([]);
});

it("has formulas as MathML, and loads nothing from elsewhere", () => {
  expect(textOf("docs/maths.html").match(/<math/g)!.length).toBeGreaterThan(50);
  for (const page of pages) {
    expect(textOf(page), page).not.toMatch(/<script|src="https?:|class="temml-error/);
    expect(textOf(page), page).toContain('<meta name="viewport"');
  }
});
