/** Your own text on the page of `saetta serve --model`. */

import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AskServer } from "../../src/ask/ask-server.ts";
import { type Dashboard, serveDashboard } from "../../src/dashboard/server.ts";
import { explorerApi } from "../../src/explorer/api.ts";
import { saetta } from "../cli/saetta.ts";
import { MODEL, trainOnExample } from "../support/asked.ts";
import { accessibilityFaults, startChromium, type Watched, WHY_NO_CHROMIUM, watchedPage } from "../support/chromium.ts";
import { scratch } from "../support/scratch.ts";

describe.skipIf(WHY_NO_CHROMIUM !== undefined)(
  `your own text on the page of saetta serve${WHY_NO_CHROMIUM === undefined ? "" : ` (${WHY_NO_CHROMIUM})`}`,
  () => {
    const features = explorerApi();
    let folder = "";
    let browser: Browser;
    let model: AskServer;
    let server: Dashboard;
    beforeAll(async () => {
      folder = await scratch("ask-page");
      await trainOnExample(folder);
      const { code, err } = await saetta(folder, "report", "runs/first", "--data", "acts.h5");
      expect([code, err]).toEqual([0, ""]);
      model = await AskServer.start({ model: MODEL });
      server = await serveDashboard({
        folders: [join(folder, "runs")],
        port: 0,
        features: features.answer,
        ask: model,
      });
      browser = await startChromium();
    });
    afterAll(async () => {
      await browser?.close();
      await server?.close();
      await model?.[Symbol.asyncDispose]();
      await features[Symbol.asyncDispose]();
      await rm(folder, { recursive: true });
    });

    const isOurs = (url: string) => url.startsWith(server.url);

    /** Opens the page, shows that it asks for nothing elsewhere and says nothing, and closes it. */
    async function onPage(
      use: (page: Page, watched: Watched) => Promise<void>,
      options: BrowserContextOptions = {},
      address = "ask/first",
    ): Promise<void> {
      const watched = await watchedPage(browser, isOurs, { reducedMotion: "reduce", ...options });
      try {
        await watched.page.goto(`${server.url}${address}`);
        await use(watched.page, watched);
        expect(watched.sins).toEqual([]);
      } finally {
        await watched.context.close();
      }
    }

    const tokensOf = (page: Page) => page.getByRole("listbox", { name: "Tokens of the text" });
    const type = async (page: Page, text: string) => {
      await page.getByLabel("Text", { exact: true }).fill(text);
      await expect
        .poll(async () => (await tokensOf(page).innerText()).replaceAll(/[⏎·]/g, ""))
        .toContain(text.slice(-9));
    };
    const shades = (page: Page) =>
      tokensOf(page)
        .getByRole("option")
        .evaluateAll((options) => options.map((option) => Number(/\bh(\d)/.exec(option.className)?.[1])));

    it("is a link away, read as one types, and shaded by any latent", async () => {
      await onPage(
        async (page) => {
          await page.getByRole("link", { name: "your own text" }).click();
          expect(page.url()).toBe(`${server.url}ask/first`);
          await tokensOf(page).waitFor();
          await type(page, "The jury said it did find the law.");
          await expect
            .poll(() => page.getByRole("status").first().innerText())
            .toMatch(/^\d+ tokens, FVU 0\.\d+, loss \d/);
          // The latent that the page chose shades something, and its button is pressed.
          expect(Math.max(...(await shades(page)))).toBe(8);
          const region = page.getByRole("region", { name: /^Latents of/ });
          await tokensOf(page).getByRole("option").nth(4).click();
          const first = region.getByRole("button", { name: /^\d+ / }).first();
          await first.click();
          expect(await first.getAttribute("aria-pressed")).toBe("true");
          const number = Number.parseInt(await first.innerText(), 10);
          expect(new URL(page.url()).hash).toBe(`#latent=${number}`);
          await expect.poll(async () => (await shades(page))[4]).toBeGreaterThan(0);
          expect(await page.getByLabel("Latent", { exact: true }).inputValue()).toBe(String(number));
          // By number, and by what is lost.
          await page.getByLabel("Latent", { exact: true }).fill("127");
          await expect.poll(() => new URL(page.url()).hash).toBe("#latent=127");
          await page.getByLabel("Shade by").selectOption("reconstruction error");
          expect((await shades(page)).slice(1).every((shade) => shade > 0)).toBe(true);
          await page.getByLabel("Shade by").selectOption("change of the next token");
          expect(Math.max(...(await shades(page)))).toBe(8);
          // Words come from the features of the run, and lead to the latent's page.
          await region.getByRole("link", { name: `Page of latent ${number}` }).click();
          expect(page.url()).toBe(`${server.url}features/first#latent=${number}`);
          await page.getByText(`Latent ${number} `).first().waitFor();
        },
        {},
        "features/first",
      );
    });

    it("shows what comes next before and after the reconstruction, token by token", async () => {
      await onPage(async (page) => {
        await tokensOf(page).waitFor();
        const region = page.getByRole("region", { name: /^What comes after/ });
        expect(await page.getByText("Training leaves this token out").count()).toBe(1);
        const startRows = await region.locator("tbody tr").allInnerTexts();
        expect(startRows.length).toBeGreaterThan(7);
        await tokensOf(page).getByRole("option").nth(6).click();
        await expect.poll(() => region.locator("tbody tr").allInnerTexts()).not.toEqual(startRows);
        expect(await region.innerText()).toMatch(/divergence \d[\d.e-]* nats, loss of the token that follows/);
        const percents = (await region.locator("tbody td").allInnerTexts()).map((text) => Number.parseFloat(text));
        for (const value of percents) expect(value).toBeGreaterThanOrEqual(0);
      });
    });

    const steer = (page: Page) => page.getByRole("region", { name: "Turn latents up and down" });
    const written = (page: Page, which: "Without" | "With") =>
      steer(page)
        .locator(".columns > div", { has: page.getByRole("heading", { name: `${which} the edits` }) })
        .locator(".written");

    it("is steered: next token and continuation with and without, side by side", async () => {
      await onPage(async (page) => {
        await tokensOf(page).getByRole("option").nth(5).click();
        const region = page.getByRole("region", { name: /^Latents of/ });
        await region
          .getByRole("button", { name: /^Steer latent/ })
          .first()
          .click();
        // The field of the value has the focus.
        await expect
          .poll(() => page.evaluate("document.activeElement.shadowRoot.activeElement.ariaLabel"))
          .toBe("Value");
        await written(page, "With").waitFor();
        const plain = await written(page, "Without").innerText();
        // Nothing added changes nothing.
        await steer(page).getByLabel("What happens to it").selectOption("add, times its direction,");
        await steer(page).getByLabel("Value").fill("0");
        await expect.poll(() => written(page, "With").innerText()).toBe(plain);
        await expect
          .poll(() =>
            steer(page)
              .getByText(/^Divergence/)
              .innerText(),
          )
          .toMatch(/^Divergence 0 nats/);
        expect(await written(page, "With").locator(".other").count()).toBe(0);
        await steer(page).getByLabel("Value").fill("400");
        await expect.poll(() => written(page, "With").innerText()).not.toBe(plain);
        expect(await written(page, "Without").innerText()).toBe(plain);
        await expect
          .poll(() =>
            steer(page)
              .getByText(/^Divergence/)
              .innerText(),
          )
          .not.toMatch(/^Divergence 0 nats/);
        // At one token only, and removed.
        await steer(page).getByLabel("On which tokens").selectOption("5");
        await steer(page).getByLabel("What happens to it").selectOption("remove");
        await expect.poll(() => steer(page).getByLabel("Value").count()).toBe(0);
        await steer(page).getByRole("button", { name: "Take edit 1 away" }).click();
        await expect.poll(() => written(page, "With").count()).toBe(0);
      });
    });

    it("is steered by keys alone, and says what is no number", async () => {
      await onPage(async (page) => {
        await tokensOf(page).waitFor();
        await steer(page).getByRole("button", { name: "Add a latent" }).focus();
        await page.keyboard.press("Enter");
        await page.locator("input:focus").waitFor();
        await page.keyboard.type("999");
        await steer(page).getByText("Latents are numbered from 0 to 127.").waitFor();
        await page.keyboard.press("ControlOrMeta+A");
        await page.keyboard.type("12");
        await page.keyboard.press("Tab");
        await page.keyboard.press("Tab");
        await page.keyboard.press("ControlOrMeta+A");
        await page.keyboard.type("1e9");
        await steer(page).getByText("The value is a number of at most").waitFor();
        await page.keyboard.press("ControlOrMeta+A");
        await page.keyboard.type("25");
        await written(page, "With").waitFor();
        await steer(page).getByLabel("seed").fill("7");
        await steer(page).getByLabel("more tokens").fill("3");
        const last = () => written(page, "With").locator("span").count();
        await expect.poll(last).toBeLessThanOrEqual(4); // the text, and at most 3 tokens
      });
    });

    it("is used with keys alone", async () => {
      await onPage(async (page) => {
        await tokensOf(page).waitFor();
        await page.getByLabel("Text", { exact: true }).focus();
        await page.keyboard.press("ControlOrMeta+A");
        await page.keyboard.type("The rain fell on the old house.");
        await expect.poll(() => tokensOf(page).innerText()).toContain("old house.");
        const focused = () =>
          page.evaluate("document.activeElement.shadowRoot.activeElement.getAttribute('role')") as Promise<string>;
        for (let i = 0; i < 5 && (await focused()) !== "listbox"; i++) await page.keyboard.press("Tab");
        expect(await focused()).toBe("listbox");
        const chosen = () => tokensOf(page).locator("[aria-selected=true]").innerText();
        await page.keyboard.press("End");
        expect(await chosen()).toBe(".");
        await page.keyboard.press("ArrowLeft");
        expect((await chosen()).trim()).toBe("house");
        expect(await tokensOf(page).getAttribute("aria-activedescendant")).toBe(
          await tokensOf(page).locator("[aria-selected=true]").getAttribute("id"),
        );
        await page.keyboard.press("Home");
        await page.keyboard.press("ArrowRight");
        expect((await chosen()).trim()).toBe("The");
        await page.keyboard.press("Tab");
        await page.keyboard.press("Enter");
        await expect.poll(() => new URL(page.url()).hash).toMatch(/^#latent=\d+$/);
      });
    });

    it("takes no text for markup, and shows what cannot be seen", async () => {
      await onPage(async (page) => {
        await tokensOf(page).waitFor();
        await type(
          page,
          "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\u202e\u200bend of it",
        );
        expect(await tokensOf(page).innerText()).toContain("<script>");
        expect(await page.locator(":is(script, img, iframe):not([src^='/assets/'])").count()).toBe(0);
        expect(await page.evaluate("window.hacked")).toBeUndefined();
        expect(await tokensOf(page).innerText()).not.toMatch(/[\u202e\u200b]/);
      });
    });

    it("says what is wrong, and goes on from there", async () => {
      await onPage(async (page, { sins }) => {
        await tokensOf(page).waitFor();
        await page.getByLabel("Text", { exact: true }).fill("word ".repeat(600));
        await expect
          .poll(() => page.getByRole("alert").innerText())
          .toMatch(/^the text has 6\d\d tokens, but at most 512 are read; shorten it$/);
        await page.getByLabel("Text", { exact: true }).fill("");
        await expect.poll(() => page.getByRole("status").first().innerText()).toBe("Type or paste a text.");
        await type(page, "A short one again.");
        expect(await page.getByRole("alert").count()).toBe(0);
        // The browser itself notes the refusal, and nothing else.
        expect(sins.splice(0).every((sin) => sin.includes("400 (Bad Request)"))).toBe(true);
      });
    });

    it.each([
      ["on a desk, light", { width: 1280, height: 900, scheme: "light" }],
      ["on a desk, dark", { width: 1280, height: 900, scheme: "dark" }],
      ["on a phone, light", { width: 390, height: 844, scheme: "light" }],
      ["on the smallest phone, dark", { width: 320, height: 600, scheme: "dark" }],
    ] as const)("has no faults that axe-core finds, and fits its window: %s", async (_, { width, height, scheme }) => {
      const options = { viewport: { width, height }, colorScheme: scheme, bypassCSP: true } as const;
      await onPage(async (page) => {
        await tokensOf(page).getByRole("option").nth(5).click();
        await page
          .getByRole("button", { name: /^Steer latent/ })
          .first()
          .click();
        await written(page, "With").waitFor();
        for (const shade of ["a latent", "reconstruction error"]) {
          await page.getByLabel("Shade by").selectOption(shade);
          expect(await accessibilityFaults(page)).toEqual([]);
        }
        expect(await page.evaluate("document.documentElement.scrollWidth - innerWidth")).toBeLessThanOrEqual(0);
      }, options);
    });

    it("says how to start a server with a model, where this one has none", async () => {
      const plain = await serveDashboard({ folders: [join(folder, "runs")], port: 0, features: features.answer });
      const { page, context } = await watchedPage(browser, (url) => url.startsWith(plain.url));
      await page.goto(`${plain.url}ask/first`);
      expect(await page.getByRole("alert").innerText()).toBe(
        "this server has no language model: start it with saetta serve RUN --model MODEL",
      );
      await page.goto(plain.url);
      await page.getByRole("link", { name: "features" }).waitFor();
      expect(await page.getByRole("link", { name: "your own text" }).count()).toBe(0);
      await context.close();
      await plain.close();
    });
  },
);
