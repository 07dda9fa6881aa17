/** Debian's Chromium, for tests that look at pages. */

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { type Browser, type BrowserContext, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { POLL_MS } from "./limits.ts";

const PATH = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Why no page can be looked at; undefined where one can. */
export const WHY_NO_CHROMIUM = existsSync(PATH)
  ? undefined
  : `there is no ${PATH}: apt install chromium, or set CHROMIUM`;

export function startChromium(): Promise<Browser> {
  // Tests run as root in containers, where Chromium's own sandbox does not start.
  return chromium.launch({ executablePath: PATH, args: ["--no-sandbox", "--disable-gpu"], timeout: POLL_MS });
}

/**
 * A page, and everything that it did which no page of ours may: what the console said, errors,
 * dialogs, and requests of what is not ours.
 */
export interface Watched {
  readonly page: Page;
  readonly context: BrowserContext;
  readonly sins: string[];
}

/** A page in a context of its own. */
export async function watchedPage(
  browser: Browser,
  isOurs: (url: string) => boolean,
  options: BrowserContextOptions = {},
): Promise<Watched> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(POLL_MS);
  const page = await context.newPage();
  const sins: string[] = [];
  page.on("console", (message) => sins.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => sins.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => {
    sins.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("request", (request) => {
    if (!isOurs(request.url())) sins.push(`request: ${request.url()}`);
  });
  return { page, context, sins };
}

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

interface AxeResult {
  readonly violations: readonly {
    readonly id: string;
    readonly nodes: readonly { readonly html: string; readonly failureSummary?: string }[];
  }[];
}

/**
 * What axe-core finds wrong with the page as it is now, a line each: every rule of WCAG 2.2 A and
 * AA, and its best practices. The page's policy must have been set aside (bypassCSP).
 */
export async function accessibilityFaults(page: Page): Promise<string[]> {
  await page.addScriptTag({ path: AXE });
  // What a rule finds right is not gone into beyond one element, which takes half the time.
  const { violations } = (await page.evaluate(`axe.run({ resultTypes: ["violations"] })`)) as AxeResult;
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html} ${failureSummary ?? ""}`),
  );
}
