/** The page of `saetta compare`, opened from disk in a browser. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Browser, BrowserContextOptions } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeComparisonHtml } from "../../src/explorer/html.ts";
import { type Comparison, classify } from "../../src/explorer/shared/comparison.ts";
import type { LatentName } from "../../src/explorer/shared/format.ts";
import { accessibilityFaults, startChromium, type Watched, WHY_NO_CHROMIUM, watchedPage } from "../support/chromium.ts";
import { HOSTILE } from "../support/planted.ts";

const LATENTS = 120;
const ASSETS = new URL("../../dist/explorer/compare/", import.meta.url);
let folder = "";
let url = "";
let browser: Browser | undefined;

beforeAll(async () => {
  if (WHY_NO_CHROMIUM !== undefined) return;
  folder = mkdtempSync(join(tmpdir(), "saetta-comparison-"));
  const numbers = Array.from({ length: LATENTS }, (_, i) => i);
  // Latent i is latent i of the other, the less so the higher i.
  const best = { best: numbers, value: numbers.map((i) => 1 - i / LATENTS) };
  const classes = classify(best, best, 0.5);
  const weak = { best: numbers.toReversed(), value: numbers.map(() => 0.25) };
  const none = classify(weak, weak, 0.5);
  const side = (which: "a" | "b") => ({
    latents: LATENTS,
    by: { cosine: { ...best, class: classes[which] }, correlation: { ...weak, class: none[which] } },
  });
  const comparison: Comparison = {
    a: side("a"),
    b: side("b"),
    names: { a: "runs/<script>one</script>", b: "runs/two" },
    least: 0.5,
    rows: 1000,
    data: "acts.h5",
  };
  const names = (text: string): LatentName[] =>
    numbers.map((i) => ({ on: [` ${text}${i}`, HOSTILE], name: i === 7 ? `\u202e${HOSTILE}` : "" }));
  await writeComparisonHtml(comparison, { a: names("left"), b: names("right") }, join(folder, "c.html"), ASSETS);
  url = pathToFileURL(join(folder, "c.html")).href;
  browser = await startChromium();
});
afterAll(async () => {
  await browser?.close();
  if (folder !== "") rmSync(folder, { recursive: true });
});

async function onPage(use: (watched: Watched) => Promise<void>, options: BrowserContextOptions = {}): Promise<void> {
  const watched = await watchedPage(browser!, (each) => each.split("#")[0] === url, options);
  try {
    await watched.page.goto(url);
    await watched.page.getByRole("heading", { level: 1 }).waitFor();
    await use(watched);
    expect(watched.sins).toEqual([]);
  } finally {
    await watched.context.close();
  }
}

describe.skipIf(WHY_NO_CHROMIUM !== undefined)("the page of a comparison", () => {
  it("says how many latents are of each class, by either measure, and asks for nothing", async () => {
    await onPage(async ({ page }) => {
      const side = page.getByRole("region", { name: "A: runs/<script>one</script>" });
      await expect.poll(() => side.getByRole("row", { name: /^match/ }).innerText()).toMatch(/^match\s+61\s+51 %$/);
      expect(await side.getByRole("img", { name: /^Latents by the cosine of their best: / }).count()).toBe(1);
      await page.getByLabel("Compared by").selectOption("correlation of activations");
      await expect.poll(() => side.getByRole("row", { name: /^lost/ }).innerText()).toMatch(/^lost\s+120\s+100 %$/);
      expect(await page.evaluate("window.hacked")).toBeUndefined();
      expect(await page.locator("#explorer :is(script, img, iframe, [onerror])").count()).toBe(0);
    });
  });

  it("finds, filters, sorts and turns pages of latents with keys alone", async () => {
    await onPage(async ({ page }) => {
      const first = () => page.locator(".pairs tbody th .number").first().innerText();
      const total = page.getByRole("status");
      expect([await first(), await total.innerText()]).toEqual(["0", "120 latents"]);
      await page.getByRole("button", { name: "Next" }).focus();
      await page.keyboard.press("Enter");
      await expect.poll(first).toBe("50");
      await page.getByLabel("Order").selectOption("smallest cosine first");
      await expect.poll(first).toBe("119");
      await page.getByLabel("Class").selectOption("lost");
      await expect.poll(() => total.innerText()).toBe("59 latents");
      await page.getByLabel("Latents of").selectOption("B");
      await expect.poll(() => total.innerText()).toBe("120 latents");
      await page.getByRole("searchbox").focus();
      await page.keyboard.type("left33");
      await expect.poll(() => total.innerText()).toBe("1 latent");
      expect(await page.locator(".pairs tbody tr").innerText()).toMatch(/^33 right33/);
      await page.getByRole("searchbox").fill("#7");
      await expect.poll(first).toBe("7");
      expect(await page.locator(".pairs tbody .name").first().innerText()).toMatch(/^·<script>/);
    });
  });

  it.each([
    ["on a desk", {}],
    ["in the dark", { colorScheme: "dark" }],
    ["on a phone", { viewport: { width: 320, height: 700 } }],
  ] as const)("has no faults that axe-core finds, and fits its window: %s", async (_, options) => {
    await onPage(
      async ({ page }) => {
        expect(await accessibilityFaults(page)).toEqual([]);
        expect(await page.evaluate("document.documentElement.scrollWidth - innerWidth")).toBeLessThanOrEqual(0);
      },
      { ...options, bypassCSP: true },
    );
  });
});
