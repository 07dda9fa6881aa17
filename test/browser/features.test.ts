/** The features of a run on the page of `saetta serve`. */

import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Dashboard, serveDashboard } from "../../src/dashboard/server.ts";
import { explorerApi } from "../../src/explorer/api.ts";
import { saetta } from "../cli/saetta.ts";
import { accessibilityFaults, startChromium, WHY_NO_CHROMIUM, watchedPage } from "../support/chromium.ts";
import { plant } from "../support/planted.ts";
import { linesOf, writeRun } from "../support/run-folder.ts";

describe.skipIf(WHY_NO_CHROMIUM !== undefined)(
  `the features of a run on the page of saetta serve${WHY_NO_CHROMIUM === undefined ? "" : ` (${WHY_NO_CHROMIUM})`}`,
  () => {
    const features = explorerApi();
    let browser: Browser;
    let folder: string;
    let server: Dashboard;
    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), "saetta-features-"));
      const { sae, acts } = await plant(folder, 40);
      const run = writeRun(join(folder, "runs", "one"), linesOf(1, 20));
      writeRun(join(folder, "runs", "two"), linesOf(1, 20));
      const checkpoint = join(run, "checkpoints", "step-00000020");
      cpSync(sae, checkpoint, { recursive: true });
      const { code, err } = await saetta(
        folder,
        "report",
        checkpoint,
        "--data",
        acts,
        "--out",
        join(folder, "report.html"),
        "--engine",
        "reference",
      );
      expect([code, err]).toEqual([0, ""]);
      browser = await startChromium();
      server = await serveDashboard({
        folders: [join(folder, "runs")],
        port: 0,
        features: features.answer,
        posts: features.post,
      });
    });
    afterAll(async () => {
      await browser?.close();
      await server?.close();
      await features[Symbol.asyncDispose]();
      if (folder !== undefined) rmSync(folder, { recursive: true });
    });

    const isOurs = (url: string) => url.startsWith(server.url);

    it("are a link away, searched and linked to, under the page's policy", async () => {
      const { page, context, sins } = await watchedPage(browser, isOurs, { reducedMotion: "reduce" });
      try {
        await page.goto(`${server.url}?run=one`);
        await expect.poll(() => page.getByRole("link", { name: "features" }).count()).toBe(1); // the other run has none
        await page.getByRole("link", { name: "features" }).click();
        expect(page.url()).toBe(`${server.url}features/one`);
        await page.getByRole("region", { name: "Strongest passages" }).waitFor();
        await page.getByText(/3 at a time, held-out FVU \d\S+$/).waitFor();
        await page.getByRole("searchbox").fill("12");
        await page.getByRole("link", { name: /^12\b/ }).first().click();
        await expect.poll(() => page.url()).toMatch(/\/features\/one#.*latent=12/);
        await page.reload();
        await page.getByText("Latent 12").first().waitFor();
        await page.getByRole("link", { name: "how one was trained" }).click();
        await page.locator(".chart").first().waitFor();
        expect(sins).toEqual([]);
      } finally {
        await context.close();
      }
    });

    it("are named by keys alone, and found by their names, here and in another page", async () => {
      const { page, context, sins } = await watchedPage(browser, isOurs, { reducedMotion: "reduce" });
      try {
        await page.goto(`${server.url}features/one#latent=20`);
        const name = page.locator("article .label .name");
        await page.getByRole("button", { name: "Name it" }).focus();
        await page.keyboard.press("Enter");
        await page.locator("input:focus").waitFor();
        await page.keyboard.type("<img src=x onerror=alert(1)>\u202e of 20");
        await page.keyboard.press("Tab");
        await page.keyboard.type("first line");
        await page.keyboard.press("Enter");
        await page.keyboard.type("second");
        await page.keyboard.press("Tab");
        await page.keyboard.press("Enter");
        await expect.poll(() => name.innerText()).toBe("<img src=x onerror=alert(1)>· of 20");
        expect(await page.locator("article .noted").innerText()).toBe("first line\nsecond");
        await expect.poll(() => page.title()).toMatch(/^Latent 20: <img src=x onerror=alert\(1\)>· of 20/);
        // Escape changes nothing.
        await page.getByRole("button", { name: "Edit" }).click();
        await page.locator("input:focus").waitFor();
        await page.keyboard.type("other");
        await page.keyboard.press("Escape");
        expect(await name.innerText()).toBe("<img src=x onerror=alert(1)>· of 20");
        await page.getByLabel("with a name or note only").check();
        await page.getByText("1 latent", { exact: true }).waitFor();
        await page.reload();
        await page.getByText("1 latent", { exact: true }).waitFor();
        expect(await page.locator(".latents .name").innerText()).toBe("<img src=x onerror=alert(1)>· of 20");
        await page.goto(`${server.url}features/one#latent=30&q=onerror`);
        await page.reload();
        await expect.poll(() => page.locator(".latents a .number").allInnerTexts()).toEqual(["20"]);
        expect(sins).toEqual([]);
      } finally {
        await context.close();
      }
    });

    it("say what is wrong with a label that is not saved", async () => {
      const { page, context } = await watchedPage(browser, isOurs, { reducedMotion: "reduce" });
      try {
        await page.goto(`${server.url}features/one#latent=30`);
        await page.getByRole("button", { name: "Name it" }).click();
        await page.route("**/labels", (route) => route.fulfill({ status: 500, body: "something went wrong here" }));
        await page.getByLabel("Name", { exact: true }).fill("x");
        await page.getByRole("button", { name: "Save", exact: true }).click();
        await expect.poll(() => page.getByRole("alert").innerText()).toBe("something went wrong here");
        expect(await page.getByLabel("Name", { exact: true }).inputValue()).toBe("x");
      } finally {
        await context.close();
      }
    });

    it.each([
      ["on a desk", {}],
      ["on a phone, dark", { viewport: { width: 320, height: 700 }, colorScheme: "dark" }],
    ] as const)("have nothing for axe-core to find in a form of a label: %s", async (_, options) => {
      const { page, context } = await watchedPage(browser, isOurs, { bypassCSP: true, ...options });
      try {
        await page.goto(`${server.url}features/one#latent=40`);
        await page.getByRole("button", { name: "Name it" }).click();
        expect(await accessibilityFaults(page)).toEqual([]);
        await page.getByLabel("Name", { exact: true }).fill("n".repeat(200));
        await page.getByLabel("Note", { exact: true }).fill("m".repeat(1000));
        await page.getByRole("button", { name: "Save", exact: true }).click();
        await page.getByRole("button", { name: "Edit" }).waitFor();
        expect(await accessibilityFaults(page)).toEqual([]);
        expect(await page.evaluate("document.documentElement.scrollWidth - innerWidth")).toBeLessThanOrEqual(0);
        await page.getByRole("button", { name: "Edit" }).click();
        await page.getByLabel("Name", { exact: true }).fill("");
        await page.getByLabel("Note", { exact: true }).fill("");
        await page.getByRole("button", { name: "Save", exact: true }).click();
        await page.getByRole("button", { name: "Name it" }).waitFor();
      } finally {
        await context.close();
      }
    });

    it("have nothing for axe-core to find", async () => {
      const { page, context } = await watchedPage(browser, isOurs, { bypassCSP: true, reducedMotion: "reduce" });
      try {
        await page.goto(`${server.url}features/one`);
        await page.getByRole("region", { name: "Strongest passages" }).waitFor();
        expect(await accessibilityFaults(page)).toEqual([]);
      } finally {
        await context.close();
      }
    });
  },
);
