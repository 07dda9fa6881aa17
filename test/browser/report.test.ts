/** The page of `saetta report`, opened from disk in a browser. */

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Browser, BrowserContextOptions } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { saetta } from "../cli/saetta.ts";
import { accessibilityFaults, startChromium, type Watched, WHY_NO_CHROMIUM, watchedPage } from "../support/chromium.ts";
import { DEAD, LATENTS, plant } from "../support/planted.ts";

let folder = "";
let url = "";
let browser: Browser | undefined;

beforeAll(async () => {
  if (WHY_NO_CHROMIUM !== undefined) return;
  folder = await mkdtemp(join(tmpdir(), "saetta-page-"));
  const { sae, acts } = await plant(folder, 40);
  const out = join(folder, "features.html");
  const { code, out: printed, err } = await saetta(folder, "report", sae, "--data", acts, "--out", out);
  expect(err).toBe("");
  expect(code).toBe(0);
  expect(printed).toMatch(/^report {7}.*features\.html: 96 latents on 2,520 rows; it opens with latent \d+\n$/);
  url = pathToFileURL(out).href;
  browser = await startChromium();
});
afterAll(async () => {
  await browser?.close();
  if (folder !== "") await rm(folder, { recursive: true });
});

if (WHY_NO_CHROMIUM !== undefined) console.warn(`test/browser/report.test.ts is skipped: ${WHY_NO_CHROMIUM}`);

const isOurs = (each: string) => each.split("#")[0] === url;

/** Opens the page, shows that it asks for nothing and says nothing meanwhile, and closes it. */
async function onPage(
  hash: string,
  use: (watched: Watched) => Promise<void>,
  options: BrowserContextOptions = {},
): Promise<void> {
  const watched = await watchedPage(browser!, isOurs, options);
  try {
    await watched.page.goto(`${url}${hash}`);
    await use(watched);
    expect(watched.sins).toEqual([]);
  } finally {
    await watched.context.close();
  }
}

describe.skipIf(WHY_NO_CHROMIUM !== undefined)("the page of a report", () => {
  it("opens with a latent in its text", async () => {
    await onPage("", async ({ page }) => {
      const heading = page.getByRole("heading", { level: 1 });
      await heading.waitFor();
      const words = (await heading.innerText()).split(" · ");
      expect(words.length).toBeGreaterThan(1);
      const marks = await page.getByRole("region", { name: "Strongest passages" }).locator("mark").allInnerTexts();
      expect(marks.length).toBeGreaterThan(5);
      // What stands in the heading is what is marked below it.
      expect(marks.map((mark) => mark.trim().toLowerCase())).toContain(words[0]!.toLowerCase());
      expect(await page.title()).toMatch(/^Latent \d+: .* · Saetta$/);
    });
  });

  it("finds latents by number and by word, as one types", async () => {
    await onPage("", async ({ page }) => {
      const search = page.getByRole("searchbox", { name: "Search latents" });
      await page.getByText(`${LATENTS} latents`, { exact: true }).waitFor();
      await search.pressSequentially("#37");
      await page.getByText("1 latent", { exact: true }).waitFor();
      expect(await page.locator(".latents a .number").allInnerTexts()).toEqual(["37"]);
      expect(new URL(page.url()).hash).toBe("#q=%2337");
      await search.fill("<");
      await expect.poll(() => page.locator(".latents a .words").allInnerTexts()).not.toContain("");
      for (const words of await page.locator(".latents a .words").allInnerTexts()) expect(words).toContain("<");
      await search.fill("no such word");
      await page.getByText("0 latents", { exact: true }).waitFor();
    });
  });

  it("sorts by what is chosen, both ways, a page at a time", async () => {
    await onPage("", async ({ page }) => {
      const numbers = () => page.locator(".latents a .number").allInnerTexts();
      const shown = async () =>
        (await page.locator(".latents a > .muted").allInnerTexts()).map((text) => Number.parseFloat(text));
      await page.getByLabel("Sort by").selectOption("number");
      await expect.poll(numbers).toEqual(Array.from({ length: 50 }, (_, i) => String(i)));
      await page.getByRole("button", { name: "Next" }).click();
      await expect.poll(numbers).toEqual(Array.from({ length: LATENTS - 50 }, (_, i) => String(50 + i)));
      expect(await page.getByRole("button", { name: "Next" }).isDisabled()).toBe(true);
      for (const [name, least] of [
        ["density", 0],
        ["maximum", 0],
        ["importance", 0],
      ] as const) {
        await page.getByLabel("Sort by").selectOption(name);
        await expect.poll(async () => (await shown())[0]).toBeGreaterThan(least);
        const falling = await shown();
        expect(falling).toEqual(falling.toSorted((a, b) => b - a));
        await page.getByRole("button", { name: "Order: largest first" }).click();
        await expect.poll(async () => (await numbers()).slice(0, 2)).toEqual(DEAD.map(String));
        await page.getByRole("button", { name: "Order: smallest first" }).click();
      }
    });
  });

  it("opens a latent, goes back to the one before, and is used with keys alone", async () => {
    await onPage("#latent=20", async ({ page }) => {
      const eyebrow = page.locator("article .eyebrow");
      await expect.poll(() => eyebrow.innerText()).toBe("Latent 20 fires most on");
      await page.getByRole("searchbox").focus();
      await page.keyboard.type("#37");
      await page.getByText("1 latent", { exact: true }).waitFor();
      for (let i = 0; i < 4; i++) await page.keyboard.press("Tab");
      await page.keyboard.press("Enter");
      await expect.poll(() => eyebrow.innerText()).toBe("Latent 37 fires most on");
      expect(new URL(page.url()).hash).toBe("#latent=37&q=%2337");
      // Who opens a latent reads on at its heading.
      await expect.poll(() => page.evaluate("document.activeElement.shadowRoot.activeElement.tagName")).toBe("H1");
      expect(await page.locator(".latents a[aria-current]").innerText()).toContain("37");
      await page.goBack();
      await expect.poll(() => eyebrow.innerText()).toBe("Latent 20 fires most on");
    });
  });

  it("shows what a link to it names", async () => {
    await onPage(`#latent=10&sort=max&order=up&q=1`, async ({ page }) => {
      await expect.poll(() => page.locator("article .eyebrow").innerText()).toBe("Latent 10 fires most on");
      expect(await page.getByRole("searchbox").inputValue()).toBe("1");
      expect(await page.getByLabel("Sort by").inputValue()).toBe("max");
      const near = page.getByRole("region", { name: "Nearest latents" }).getByRole("listitem").first();
      expect(await near.innerText()).toMatch(/^11\s+⇆\s+0\.60$/);
      await near.getByRole("link").first().click();
      await expect.poll(() => page.getByRole("heading", { level: 1 }).innerText()).toBe("It never fires");
      expect(new URL(page.url()).hash).toContain("latent=11");
    });
    await onPage("#latent=96", async ({ page }) => {
      expect(await page.getByRole("alert").innerText()).toContain(
        "there is no latent 96; they are numbered from 0 to 95",
      );
      await page.goto(`${url}#latent=95`);
      await expect.poll(() => page.getByRole("heading", { level: 1 }).innerText()).toBe("It never fires");
    });
  });

  it("tells the tokens that a latent promotes, its histogram and its weaker firings", async () => {
    await onPage("#latent=20", async ({ page }) => {
      await expect
        .poll(() => page.getByRole("region", { name: "What it does to the next token" }).getByRole("listitem").count())
        .toBe(20);
      const picture = page.getByRole("img", {
        name: /^Histogram of [\d,]+ firings by value, from 0 to [\d.]+; most are near [\d.]+$/,
      });
      expect(await picture.locator("rect").count()).toBeGreaterThan(30);
      expect(await page.getByRole("region", { name: "Weaker firings" }).locator("h3").count()).toBeGreaterThan(2);
      const list = page.locator(".passages").first();
      const height = async () => (await list.boundingBox())?.height ?? 0;
      const before = await height();
      await page.getByRole("button", { name: "Whole passages" }).click();
      await expect.poll(height).toBeGreaterThan(before);
      expect(await page.getByRole("button", { name: "Whole passages" }).getAttribute("aria-pressed")).toBe("true");
    });
  });

  it("shows two latents next to each other, with what they have in common", async () => {
    await onPage("#latent=10", async ({ page }) => {
      const near = page.getByRole("region", { name: "Nearest latents" });
      await near.getByRole("link", { name: "Show latent 11 next to it" }).click();
      const eyebrows = page.locator("article .eyebrow");
      await expect.poll(() => eyebrows.allInnerTexts()).toEqual(["Latent 10 fires most on", "Latent 11"]);
      expect(new URL(page.url()).hash).toBe("#latent=10&with=11");
      expect(await page.locator(".pair-bar [role=status]").innerText()).toMatch(/^cosine 0\.60; not among those/);
      await page.getByRole("spinbutton").fill("30");
      await page.keyboard.press("Enter");
      await expect.poll(() => eyebrows.allInnerTexts()).toEqual(["Latent 10 fires most on", "Latent 30 fires most on"]);
      expect(await page.getByRole("region", { name: "Strongest passages, latent 30" }).count()).toBe(1);
      // Its links change the second latent, the arrow keys the first.
      await page.getByRole("region", { name: "Nearest latents, latent 30" }).getByRole("link").first().click();
      await expect.poll(async () => (await eyebrows.allInnerTexts())[1]).not.toContain("30");
      await page.getByRole("link", { name: /^Close \d+$/ }).click();
      await expect.poll(() => eyebrows.count()).toBe(1);
      expect(new URL(page.url()).hash).toBe("#latent=10");
    });
    await onPage("#latent=10&with=96", async ({ page }) => {
      expect(await page.getByRole("alert").innerText()).toContain("there is no latent 96");
    });
  });

  it("says what fires together with a latent", async () => {
    await onPage("#latent=20", async ({ page }) => {
      const together = page.getByRole("region", { name: "Fires together with" });
      await together.waitFor();
      const lifts = (await together.getByRole("listitem").allInnerTexts()).map((text) => /([\d.]+) ×$/.exec(text)?.[1]);
      for (const lift of lifts) expect(Number(lift)).toBeGreaterThan(1);
    });
  });

  it("shows the whole text of a passage, shaded by one latent or another", async () => {
    await onPage("#latent=20", async ({ page }) => {
      const [value = ""] = await page.locator(".passages .value a").allInnerTexts();
      await page
        .getByRole("link", { name: `${value}: show the whole text` })
        .first()
        .focus();
      await page.keyboard.press("Enter");
      const heading = page.getByRole("heading", { level: 1 });
      await expect.poll(() => heading.innerText()).toMatch(/^Shaded by latent 20/);
      const marked = await page.locator(".whole mark").allInnerTexts();
      expect(marked.length).toBeGreaterThan(0);
      expect(await page.getByText(/^It fires on \d+ of 63 tokens here\.$/).count()).toBe(1);
      const text = await page.locator(".whole").innerText();
      await page.keyboard.press("ArrowRight");
      await expect.poll(() => heading.innerText()).not.toMatch(/latent 20\b/);
      expect(await page.locator(".whole").innerText()).toBe(text);
      await page.getByRole("region", { name: "Strongest latents of this text" }).getByRole("link").nth(1).click();
      await page.getByRole("link", { name: /^Back to latent/ }).click();
      await page.getByRole("region", { name: "Strongest passages" }).waitFor();
      await page.goto(`${url}#latent=20&document=99999`);
      await expect.poll(() => page.getByRole("alert").innerText()).toMatch(/there is no document 99999/);
    });
  });

  it("saves its charts as SVG and PNG, without asking for anything", async () => {
    await onPage("#latent=20", async ({ page }) => {
      const figure = page.getByRole("region", { name: "How strongly it fires" });
      const saved = async (name: string) => {
        const [download] = await Promise.all([
          page.waitForEvent("download"),
          figure.getByRole("button", { name }).click(),
        ]);
        return { name: download.suggestedFilename(), bytes: await readFile(await download.path()) };
      };
      const svg = await saved("Save the chart as SVG");
      expect(svg.name).toMatch(/^histogram-of-.*\.svg$/);
      expect(svg.bytes.toString()).toMatch(
        /^<svg [^>]*xmlns="http:\/\/www.w3.org\/2000\/svg".*<rect[^>]* fill="rgb\(/s,
      );
      const png = await saved("Save the chart as PNG");
      expect([...png.bytes.subarray(1, 4)]).toEqual([0x50, 0x4e, 0x47]);
    });
  });

  it("has a map of all latents, on which keys and the pointer lead to each", async () => {
    await onPage("#latent=20", async ({ page }) => {
      await page.getByRole("link", { name: "Map of latents" }).click();
      const map = page.getByRole("application", { name: /^Map of 96 latents; latent 20 is chosen/ });
      await map.focus();
      const seen = new Set<string>();
      for (const key of ["ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown", "ArrowRight"]) {
        await page.keyboard.press(key);
        seen.add((await page.getByRole("application").getAttribute("aria-label")) ?? "");
      }
      expect(seen.size).toBeGreaterThan(1);
      const chosen = /latent (\d+) is chosen/.exec(
        (await page.getByRole("application").getAttribute("aria-label")) ?? "",
      );
      await page.keyboard.press("Enter");
      await expect
        .poll(() => page.locator("article .eyebrow").innerText())
        .toMatch(new RegExp(`^Latent ${chosen?.[1]}\\b`));
      expect(new URL(page.url()).hash).not.toContain("map");
    });
  });

  it("takes no text for markup, and runs nothing but its own script", async () => {
    await onPage("#q=%3Cscript%3Ewindow.hacked%3D3%3C%2Fscript%3E", async ({ page }) => {
      await page.getByRole("heading", { level: 1 }).waitFor();
      let seen = 0;
      for (let latent = 0; latent < LATENTS; latent += 4) {
        await page.evaluate(`location.hash = "#latent=${latent}"`);
        await expect
          .poll(() => page.locator("article .eyebrow").innerText())
          .toMatch(new RegExp(`^Latent ${latent}( |$)`));
        if ((await page.locator("main").innerText()).includes("<script>")) seen++;
        expect(await page.locator("#explorer :is(script, img, b, iframe, [onerror])").count()).toBe(0);
      }
      expect(seen).toBeGreaterThan(1);
      expect(await page.evaluate("window.hacked")).toBeUndefined();
    });
    const watched = await watchedPage(browser!, isOurs);
    await watched.page.goto(url);
    const tried = await watched.page.evaluate(`(async () => {
      const script = document.createElement("script");
      script.textContent = "window.hacked = 1";
      document.body.append(script);
      const image = document.createElement("img");
      image.src = "http://evil.test/x.png";
      document.body.append(image);
      const asked = await fetch("http://evil.test/").then(() => "answered", () => "refused");
      return [window.hacked, asked];
    })()`);
    expect(tried).toEqual([undefined, "refused"]);
    expect(watched.sins.filter((line) => /Content Security Policy/.test(line)).length).toBeGreaterThanOrEqual(3);
    await watched.context.close();
  });

  it.each([
    [
      "on a desk, light",
      { width: 1280, height: 800, scheme: "light" },
      ["#latent=20", "#latent=11", "#latent=96", "#latent=20&with=10"],
    ],
    ["on a desk, dark", { width: 1280, height: 800, scheme: "dark" }, ["#latent=20"]],
    ["on a phone, light", { width: 390, height: 844, scheme: "light" }, ["#latent=20"]],
    [
      "on the smallest phone, dark",
      { width: 320, height: 600, scheme: "dark" },
      ["#latent=20", "#latent=20&with=10", "#latent=20&document=1", "#latent=20&view=map"],
    ],
  ] as const)("has no faults that axe-core finds, and fits its window: %s", async (_, {
    width,
    height,
    scheme,
  }, hashes) => {
    // The policy would keep axe-core out, too.
    const context = await browser!.newContext({ viewport: { width, height }, colorScheme: scheme, bypassCSP: true });
    try {
      const page = await context.newPage();
      for (const hash of hashes) {
        await page.goto(`${url}${hash}`);
        await page.reload();
        await page.locator("h1, [role=alert]").first().waitFor();
        if (width < 960) await page.locator("summary").click();
        await page.locator(".latents a").first().waitFor();
        expect(await accessibilityFaults(page)).toEqual([]);
        expect(await page.evaluate("document.documentElement.scrollWidth - innerWidth")).toBeLessThanOrEqual(0);
      }
    } finally {
      await context.close();
    }
  });

  it("on a phone shows the latent first, and the list when asked", async () => {
    await onPage(
      "#latent=20",
      async ({ page }) => {
        await page.locator("mark").first().waitFor();
        const box = await page.locator("mark").nth(4).boundingBox();
        expect((box?.y ?? 9999) + (box?.height ?? 0)).toBeLessThan(844);
        expect(await page.locator(".latents a").first().isVisible()).toBe(false);
        await page.locator("summary").click();
        await page.locator(".latents a").first().click();
        await expect.poll(() => page.locator(".latents a").first().isVisible()).toBe(false);
        await expect.poll(() => page.locator("article .eyebrow").innerText()).not.toContain("Latent 20 ");
      },
      { viewport: { width: 390, height: 844 } },
    );
  });
});
