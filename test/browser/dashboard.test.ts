/**
 * The page of `saetta serve` in Chromium, over a server and run folders that change while it looks.
 */

import { mkdtempSync, renameSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Dashboard, serveDashboard } from "../../src/dashboard/server.ts";
import { accessibilityFaults, startChromium, type Watched, WHY_NO_CHROMIUM, watchedPage } from "../support/chromium.ts";
import { appendLines, densityLine, linesOf, metricsLine, writeRun } from "../support/run-folder.ts";

const TIMES = { look: 50, scan: 200 };

const TITLE = `the page of saetta serve${WHY_NO_CHROMIUM === undefined ? "" : ` (${WHY_NO_CHROMIUM})`}`;

describe.skipIf(WHY_NO_CHROMIUM !== undefined)(TITLE, () => {
  let browser: Browser;
  let folder: string;
  let server: Dashboard;
  let watched: Watched;
  let page: Page;
  beforeAll(async () => {
    browser = await startChromium();
  });
  afterAll(() => browser?.close());
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "saetta-browser-"));
    writeRun(join(folder, "a"), linesOf(1, 100), { lr: 0.001 });
    writeRun(join(folder, "b"), linesOf(1, 120, 1), { lr: 0.002, ema: 0.99 });
    appendLines(join(folder, "a"), "density.jsonl", [densityLine(50), densityLine(100)]);
    appendLines(join(folder, "b"), "density.jsonl", [densityLine(100)]);
    server = await serveDashboard({ folders: [folder], port: 0, times: TIMES, now: () => 0 });
    watched = await watchedPage(browser, isOurs);
    page = watched.page;
  });
  afterEach(async () => {
    await watched.context.close();
    await server.close();
    rmSync(folder, { recursive: true });
  });

  const isOurs = (url: string) => url.startsWith(server.url);
  const open = (query: string) => page.goto(`${server.url}${query}`);
  const chart = (id: string) => page.locator(`[data-chart="${id}"]`);
  /** The values that a chart shows. */
  const values = (id: string) => chart(id).locator(".readout .value").allTextContents();
  const text = (selector: string) => page.locator(selector).innerText();
  /** The pixels of a chart. */
  const picture = (id: string) =>
    chart(id)
      .locator("canvas")
      .evaluate((canvas) => (canvas as unknown as { toDataURL(): string }).toDataURL());

  it("shows a live run: its charts move, its figures follow, its time left shrinks", async () => {
    await open("?run=a");
    await expect.poll(() => values("loss")).toEqual(["0.1"]);
    expect(await text(".now .left")).toBe("10 s left 50 %");
    const before = await picture("loss");
    appendLines(join(folder, "a"), "metrics.jsonl", linesOf(101, 150));
    await expect.poll(() => values("loss")).toEqual(["0.08165"]);
    expect(await picture("loss")).not.toBe(before);
    await expect.poll(() => text(".now .left")).toBe("5 s left 75 %");
    appendLines(join(folder, "a"), "metrics.jsonl", linesOf(151, 200));
    await expect.poll(() => text(".now .left")).toBe("done");
    // Half a line is none.
    appendLines(join(folder, "a"), "density.jsonl", [densityLine(200)]);
    await expect.poll(() => text(".density .readout")).toContain("200");
    expect(watched.sins).toEqual([]);
  });

  it("compares two runs: curves, figures and the options in which they differ", async () => {
    await open("?run=a");
    await expect.poll(() => values("fvu")).toEqual(["0.1", "0.11"]);
    await page.getByRole("checkbox", { name: "b", exact: true }).check();
    await expect.poll(() => values("fvu")).toEqual(["0.1", "0.11", "0.04564", "0.05021"]);
    expect(page.url()).toBe(`${server.url}?run=a&run=b`);
    const rows = (table: string) =>
      page
        .locator(`${table} tbody tr`)
        .evaluateAll((all) =>
          all.map((row) => (row as unknown as { innerText: string }).innerText.split(/\s+/).join(" ").trim()),
        );
    expect(await rows(".config")).toEqual(["lr 0.001 0.002", "ema – 0.99"]);
    expect((await rows(".now"))[1]).toMatch(/^b running 0\.05021 0\.04564 8 1 3,840 320 8 s$/);
    await page.getByRole("button", { name: /^all \d+$/ }).click();
    expect((await rows(".config")).length).toBeGreaterThan(5);
    expect(await page.locator(".histogram path").count()).toBe(2);
    await page.getByRole("button", { name: "only b" }).click();
    await expect.poll(() => values("fvu")).toEqual(["0.04564", "0.05021"]);
    expect(watched.sins).toEqual([]);
  });

  it("comes back after the server was away, and after a run was resumed", async () => {
    await open("?run=a");
    await expect.poll(() => values("loss")).toEqual(["0.1"]);
    const { port } = server;
    await server.close();
    await expect.poll(() => text(".connection")).toBe("connection lost, trying again");
    appendLines(join(folder, "a"), "metrics.jsonl", linesOf(101, 120));
    server = await serveDashboard({ folders: [folder], port, times: TIMES });
    await expect.poll(() => text(".connection")).toBe("live");
    await expect.poll(() => values("loss")).toEqual(["0.09129"]);
    truncateSync(
      join(folder, "a", "metrics.jsonl"),
      `${linesOf(1, 60)
        .map((line) => JSON.stringify(line))
        .join("\n")}\n`.length,
    );
    appendLines(join(folder, "a"), "metrics.jsonl", linesOf(61, 64));
    await expect.poll(() => values("loss")).toEqual(["0.125"]);
    expect(
      watched.sins.filter(
        (sin) => !/ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_EMPTY|ERR_CONNECTION_RESET/.test(sin),
      ),
    ).toEqual([]);
  });

  it("shows runs that begin while it is open, and says so of those that are gone", async () => {
    rmSync(join(folder, "a"), { recursive: true });
    renameSync(join(folder, "b"), join(folder, ".b"));
    await open("");
    await expect.poll(() => text(".runs")).toContain("There are no runs here yet");
    renameSync(join(folder, ".b"), join(folder, "b"));
    await expect.poll(() => values("loss")).toEqual(["0.04564"]);
    rmSync(join(folder, "b"), { recursive: true });
    await expect.poll(() => page.locator(".chart").count()).toBe(0);
    expect(watched.sins).toEqual([]);
  });

  it("works by keys alone", async () => {
    await open("?run=a");
    await expect.poll(() => values("loss")).toEqual(["0.1"]);
    const plot = chart("loss").locator(".plot");
    for (let i = 0; i < 60 && !(await plot.evaluate((element) => element === element.ownerDocument.activeElement)); i++)
      await page.keyboard.press("Tab");
    await page.keyboard.press("Home");
    await expect.poll(() => values("loss")).toEqual(["1"]);
    expect(await chart("loss").locator(".about").innerText()).toBe("at step 1");
    expect(await chart("l0").locator(".about").innerText()).toBe("at step 1"); // the others follow
    await page.keyboard.press("ArrowRight");
    await expect.poll(() => values("loss")).toEqual(["0.7071"]);
    await page.keyboard.press("l");
    await expect
      .poll(() => chart("loss").getByRole("button", { name: "log" }).getAttribute("aria-pressed"))
      .toBe("false");
    await page.keyboard.press("+");
    await page.getByRole("button", { name: "show everything" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "show everything" }).waitFor({ state: "detached" });
    await page.getByRole("radio", { name: "rows" }).focus();
    await page.keyboard.press("ArrowRight");
    expect(await page.getByRole("radio", { name: "time" }).isChecked()).toBe(true);
    expect(watched.sins).toEqual([]);
  });

  it("keeps up with 100,000 lines: every spike is there, and near by every line", async () => {
    const lines = linesOf(1, 100_000).map((line) => (line.step === 54_321 ? { ...line, loss: 7 } : line));
    writeRun(join(folder, "long"), lines, { tokens: 6_400_000 });
    await open("?run=long");
    await expect.poll(() => values("loss")).toEqual(["0.003162"]);
    expect(await chart("loss").locator(".plot").getAttribute("aria-label")).toContain("up to step 100,000");
    const series = (await (await page.request.get(`${server.url}api/runs/long/series?points=500`)).json()) as {
      step: number[];
      metrics: { name: string; max: number[] }[];
    };
    expect(series.step.length).toBe(500);
    expect(series.step.at(-1)).toBe(100_000);
    expect(Math.max(...series.metrics.find(({ name }) => name === "loss")!.max)).toBe(7);
    // Dragged over a small part, the chart fetches it line by line.
    const box = (await chart("loss").locator(".u-over").boundingBox())!;
    const asked = page.waitForRequest((request) => request.url().includes("/series?from="));
    await page.mouse.move(box.x + box.width * 0.5, box.y + 50);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.52, box.y + 60, { steps: 4 });
    await page.mouse.up();
    await asked;
    appendLines(join(folder, "long"), "metrics.jsonl", [metricsLine(100_001, 0, { loss: 0.5 })]);
    await page.getByRole("button", { name: "show everything" }).click();
    await expect.poll(() => chart("loss").locator(".plot").getAttribute("aria-label")).toContain("up to step 100,001");
    expect(watched.sins).toEqual([]);
  });

  it("draws what an architecture adds: L0 by threshold, a curve per prefix and per quantile, the coefficient", async () => {
    const more = (step: number) => ({
      ...{ holdout_l0: 8 + 8 / step, prefix_fvu: [0.5, 0.25, 0.125], holdout_prefix_fvu: [0.6, 0.3, 0.15] },
      ...{ threshold_quantiles: [0, 0.1, 0.2, 0.3, 0.4], sparsity_coef: 0.01 * step, sparsity_loss: 0.02 },
    });
    const lines = Array.from({ length: 50 }, (_, i) => metricsLine(i + 1, 0, more(i + 1)));
    writeRun(join(folder, "many"), lines);
    await open("?run=many");
    await expect.poll(() => values("l0")).toEqual(["8", "8.16"]);
    expect(await values("prefix_fvu")).toEqual(["0.5", "0.25", "0.125", "0.6", "0.3", "0.15"]);
    expect(await values("threshold_quantiles")).toEqual(["0", "0.1", "0.2", "0.3", "0.4"]);
    expect([...(await values("sparsity_coef")), ...(await values("sparsity_loss"))]).toEqual(["0.5", "0.02"]);
    expect(await text(".now")).toContain("8.16 by threshold, held-out");
    expect(await page.locator('[data-chart^="other:"]').count()).toBe(0);
    // Long legends wrap: nothing makes the page wider than the window.
    const tooWide = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
    expect(await page.evaluate(tooWide)).toBe(0);
    expect(watched.sins).toEqual([]);
    await open("?run=a");
    await expect.poll(() => values("l0")).toEqual(["8"]);
    for (const id of ["prefix_fvu", "threshold", "threshold_quantiles", "sparsity_coef", "sparsity_loss"])
      expect(await chart(id).count(), id).toBe(0);
  });

  it("takes names of metrics, options and runs for text", async () => {
    const evil = "<script>alert(1)</script>";
    const image = "<img src=x onerror=alert(2)>";
    writeRun(
      join(folder, "<svg onload=alert(3)>"),
      [...linesOf(1, 10), metricsLine(11, 0, { [evil]: 5, [image]: 6 })],
      {
        [evil]: image,
        lr: evil,
      },
    );
    await open("");
    await page.getByRole("button", { name: "only <svg onload=alert(3)>" }).click();
    await expect.poll(() => chart(`other:${evil}`).locator("h3").innerText()).toBe(evil);
    expect(await chart(`other:${image}`).locator("h3").innerText()).toBe(image);
    expect(await text(".config")).toContain(image);
    expect(await page.locator("#app script, #app img").count()).toBe(0);
    expect(watched.sins).toEqual([]);
  });

  it("draws whatever numbers a log holds", async () => {
    const wild = [1e38, -1e38, 1e-38, 0, -0, null, 1e300, "text", 3.4e38];
    const lines = wild.map((value, i) =>
      metricsLine(10 ** (i * 30), 0, { loss: value, lr: value, wild: value, tokens: -i, elapsed_s: 10 ** (i * 9) }),
    );
    writeRun(join(folder, "wild"), lines, { tokens: 1e300 });
    await open("?run=wild");
    await expect.poll(() => chart("other:wild").count()).toBe(1);
    for (const name of ["rows", "time", "steps"]) await page.getByRole("radio", { name }).check();
    await page.getByRole("checkbox", { name: "logarithmic" }).check();
    for (const button of await page.getByRole("button", { name: "log", exact: true }).all()) await button.click();
    await page.getByRole("slider", { name: "smoothing" }).fill("50");
    await expect.poll(() => chart("loss").locator("canvas").count()).toBe(1);
    expect(watched.sins).toEqual([]);
  });

  it("has nothing for axe-core to find: light and dark, on a desk and on a phone", async () => {
    const other = await watchedPage(browser, isOurs, { reducedMotion: "reduce", bypassCSP: true });
    try {
      await other.page.goto(`${server.url}?run=a&run=b`);
      await other.page.locator(".histogram path").first().waitFor();
      for (const width of [1280, 390]) {
        await other.page.setViewportSize({ width, height: 850 });
        for (const colorScheme of ["light", "dark"] as const) {
          await other.page.emulateMedia({ colorScheme });
          expect([width, colorScheme, await accessibilityFaults(other.page)]).toEqual([width, colorScheme, []]);
        }
        // Nothing is wider than the screen.
        expect(await other.page.evaluate("document.documentElement.scrollWidth")).toBeLessThanOrEqual(width);
      }
      expect(other.sins).toEqual([]);
    } finally {
      await other.context.close();
    }
  });

  it("cannot be used by the page of a stranger", async () => {
    const stranger = await watchedPage(browser, () => true);
    try {
      await stranger.page.route("http://stranger.test/**", (route) =>
        route.fulfill({ contentType: "text/html", body: "<!doctype html><title>stranger</title>" }),
      );
      await stranger.page.goto("http://stranger.test/");
      const got = await stranger.page.evaluate(async (url) => {
        const attempt = (mode: "cors" | "no-cors") =>
          fetch(`${url}api/runs/a/series`, { mode }).then(
            (answer) => `${answer.type} ${answer.status}`,
            () => "refused",
          );
        return [await attempt("cors"), await attempt("no-cors")];
      }, server.url);
      expect(got).toEqual(["refused", "refused"]);
    } finally {
      await stranger.context.close();
    }
  });
});
