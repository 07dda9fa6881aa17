/** A real browser, and what a page must not do in it. */

import { existsSync, readFileSync } from "node:fs";
import { type Browser, type BrowserContext, type BrowserContextOptions, chromium, type Page } from "playwright-core";

const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => existsSync(path));

/** Why pages cannot be shown here; undefined when they can. */
export const noBrowser = CHROMIUM === undefined ? "no chromium here: apt install chromium" : undefined;

export function openBrowser(): Promise<Browser> {
  // Its sandbox needs what containers do not give; the pages are our own.
  return chromium.launch({ executablePath: CHROMIUM ?? "", args: ["--no-sandbox"] });
}

/** A page, and everything that it did which no page of ours may: errors, and requests beyond its origin. */
export interface Watched {
  readonly page: Page;
  readonly context: BrowserContext;
  readonly sins: string[];
}

export async function watchedPage(browser: Browser, origin: string, options: BrowserContextOptions = {}): Promise<Watched> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const sins: string[] = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) sins.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => sins.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => {
    sins.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(origin)) sins.push(`request: ${request.url()}`);
  });
  return { page, context, sins };
}

const AXE = readFileSync(new URL("../../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

/** What axe-core finds against the page, as "rule: element". */
export async function violations(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    const { axe } = globalThis as unknown as {
      readonly axe: {
        run(): Promise<{ readonly violations: readonly { readonly id: string; readonly nodes: readonly { readonly html: string }[] }[] }>;
      };
    };
    const found = await axe.run();
    return found.violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`));
  });
}
