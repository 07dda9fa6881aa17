/** The comparison of all runs on the page of `saetta serve`: its picture and its table. */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Dashboard, serveDashboard } from "../../src/dashboard/server.ts";
import { accessibilityFaults, startChromium, type Watched, WHY_NO_CHROMIUM, watchedPage } from "../support/chromium.ts";
import { appendLines, linesOf, metricsLine, writeRun } from "../support/run-folder.ts";

const TITLE = `all runs compared${WHY_NO_CHROMIUM === undefined ? "" : ` (${WHY_NO_CHROMIUM})`}`;

describe.skipIf(WHY_NO_CHROMIUM !== undefined)(TITLE, () => {
  let browser: Browser;
  let folder: string;
  let server: Dashboard;
  let watched: Watched;
  let page: Page;
  const MEMBERS = [4, 8, 16].flatMap((k) => [0.001, 0.01].map((lr) => ({ k, lr, name: `k${k}-lr${lr}` })));
  const fvuOf = ({ k, lr }: { k: number; lr: number }) => Number((1 / k + (lr === 0.01 ? 0.2 : 0)).toPrecision(4));
  beforeAll(async () => {
    browser = await startChromium();
  });
  afterAll(() => browser?.close());
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "saetta-compare-"));
    for (const member of MEMBERS) {
      const last = { l0: member.k, holdout_fvu: fvuOf(member) };
      writeRun(join(folder, "sweep", member.name), [...linesOf(1, 9), metricsLine(10, 0, last)], member);
    }
    const ended = ["k4-lr0.01"];
    const found = ["k4-lr0.001", "k4-lr0.01"].map((name) => ({ name, holdout_fvu: 0.4, l0: 4 }));
    const file = { members: MEMBERS.map(({ name }) => name), rungs: [{ step: 5, found, ended }] };
    writeFileSync(join(folder, "sweep", "sweep.json"), JSON.stringify(file));
    server = await serveDashboard({ folders: [join(folder, "sweep")], port: 0, times: { look: 50, scan: 100 } });
    watched = await watchedPage(browser, (url) => url.startsWith(server.url), { bypassCSP: true });
    page = watched.page;
    await page.goto(server.url);
    await page.locator(".compare .point").first().waitFor();
  });
  afterEach(async () => {
    await watched.context.close();
    await server.close();
    rmSync(folder, { recursive: true });
  });

  const rows = () => page.locator(".compare tbody th").allInnerTexts();
  const filter = (text: string) => page.getByRole("searchbox", { name: "filter" }).fill(text);

  it("has a point per run, and marks the Pareto front", async () => {
    expect(await page.locator(".compare .point").count()).toBe(6);
    expect(await page.locator(".compare .ring").count()).toBe(3);
    expect(await page.locator(".compare svg[role=img]").getAttribute("aria-label")).toBe(
      "held-out FVU against L0, 6 runs; on the Pareto front: k4-lr0.001, k8-lr0.001, k16-lr0.001. The table below has the numbers.",
    );
    await page.getByLabel("across").selectOption("lr");
    await expect.poll(() => page.locator(".compare .ring").count()).toBe(0); // a rate is no cost
    // A better one comes while the page is open.
    await page.getByLabel("across").selectOption("l0");
    const better = metricsLine(20, 0, { l0: 16, holdout_fvu: 0.01 });
    appendLines(join(folder, "sweep", "k16-lr0.01"), "metrics.jsonl", [better]);
    const label = page.locator(".compare svg[role=img]");
    await expect.poll(() => label.getAttribute("aria-label")).toContain("k8-lr0.001, k16-lr0.01.");
    expect(watched.sins).toEqual([]);
  });

  it("has a table that is sorted, filtered and grouped, and shows the curves of a run", async () => {
    const byFvu = MEMBERS.toSorted((a, b) => fvuOf(a) - fvuOf(b)).map(({ name }) => name);
    expect(await rows()).toEqual(byFvu);
    await page.getByRole("columnheader", { name: "held-out FVU" }).getByRole("button").click();
    await expect.poll(rows).toEqual(byFvu.toReversed());
    await page.getByRole("columnheader", { name: "k", exact: true }).getByRole("button").click();
    await expect.poll(async () => (await rows())[0]).toBe("k4-lr0.001");
    await filter("lr<0.005 k>4");
    await expect.poll(rows).toEqual(["k8-lr0.001", "k16-lr0.001"]);
    expect(await page.locator(".compare .point").count()).toBe(2);
    await filter("halved");
    await expect.poll(rows).toEqual(["k4-lr0.01"]);
    expect(await page.locator(".compare tbody td").first().innerText()).toBe("ended early");
    await filter("");
    await page.getByLabel("group by").selectOption("k");
    await expect.poll(() => page.locator(".compare .legend li").allInnerTexts()).toEqual(["k 4", "k 8", "k 16"]);
    await page.getByLabel("group by").selectOption("");
    await expect.poll(() => page.locator(".compare .legend").count()).toBe(0);
    await page.getByRole("checkbox", { name: "show the curves of k8-lr0.001" }).check();
    await expect.poll(() => new URL(page.url()).searchParams.getAll("run")).toContain("k8-lr0.001");
    expect(watched.sins).toEqual([]);
  });

  it("has nothing for axe-core to find: light and dark, on a desk and on a phone", async () => {
    for (const width of [1280, 390]) {
      await page.setViewportSize({ width, height: 850 });
      for (const colorScheme of ["light", "dark"] as const) {
        await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
        expect([width, colorScheme, await accessibilityFaults(page)]).toEqual([width, colorScheme, []]);
      }
      expect(await page.evaluate("document.documentElement.scrollWidth")).toBeLessThanOrEqual(width);
    }
    expect(watched.sins).toEqual([]);
  });
});
