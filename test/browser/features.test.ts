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
      server = await serveDashboard({ folders: [join(folder, "runs")], port: 0, features: features.answer });
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
