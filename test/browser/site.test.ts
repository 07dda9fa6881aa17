/** The site in a browser: every page fits a phone, and axe-core has no complaint. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { accessibilityFaults, startChromium, WHY_NO_CHROMIUM, watchedPage } from "../support/chromium.ts";

const { buildSite } = (await import(resolve("scripts/site.mjs"))) as { buildSite: (folder: string) => string[] };

describe.skipIf(WHY_NO_CHROMIUM !== undefined)("the site", () => {
  const folder = mkdtempSync(join(tmpdir(), "saetta-site-"));
  const isOurs = (url: string) => url.startsWith(pathToFileURL(folder).href);
  const addressOf = (page: string) => pathToFileURL(join(folder, page)).href;
  let browser: Browser;
  let pages: string[];
  beforeAll(async () => {
    pages = buildSite(folder);
    browser = await startChromium();
  });
  afterAll(async () => {
    await browser?.close();
    rmSync(folder, { recursive: true });
  });

  it("fits a phone on every page, and loads only itself", async () => {
    const viewport = { width: 390, height: 800 };
    const { page, context, sins } = await watchedPage(browser, isOurs, { viewport, isMobile: true });
    const wide: string[] = [];
    for (const each of pages) {
      await page.goto(addressOf(each));
      if (((await page.evaluate("document.documentElement.scrollWidth")) as number) > viewport.width) wide.push(each);
    }
    expect({ wide, sins }).toEqual({ wide: [], sins: [] });
    await context.close();
  });

  it.each(["light", "dark"] as const)("has no faults that axe-core finds, %s", async (colorScheme) => {
    const { page, context } = await watchedPage(browser, isOurs, { colorScheme });
    for (const each of ["index.html", "README.zh.html", "docs/maths.html", "docs/walkthrough.html", "docs/data.html"]) {
      await page.goto(addressOf(each));
      expect(await accessibilityFaults(page), each).toEqual([]);
    }
    await context.close();
  });
});
