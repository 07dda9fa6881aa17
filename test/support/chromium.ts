/** Debian's Chromium, for tests that look at pages. */

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { type Browser, chromium, type Page } from "playwright-core";

const PATH = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Why no page can be looked at; undefined where one can. */
export const WHY_NO_CHROMIUM = existsSync(PATH) ? undefined : `there is no ${PATH}: apt install chromium, or set CHROMIUM`;

export function startChromium(): Promise<Browser> {
  // Tests run as root in containers, where Chromium's own sandbox does not start.
  return chromium.launch({ executablePath: PATH, args: ["--no-sandbox", "--disable-gpu"] });
}

export interface Watched {
  readonly page: Page;
  /** Addresses that were asked for, and all that the console said. */
  readonly requests: string[];
  readonly said: string[];
}

export interface Looks {
  readonly width?: number;
  readonly height?: number;
  readonly scheme?: "light" | "dark";
}

/** A page that notes what it asks for and says. */
export async function openPage(browser: Browser, { width = 1280, height = 800, scheme = "light" }: Looks = {}): Promise<Watched> {
  const page = await browser.newPage({ viewport: { width, height }, colorScheme: scheme });
  const requests: string[] = [];
  const said: string[] = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => said.push(`error: ${error.message}`));
  return { page, requests, said };
}

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

interface Found {
  readonly violations: readonly {
    readonly id: string;
    readonly nodes: readonly { readonly html: string; readonly failureSummary?: string }[];
  }[];
}

/** What axe-core finds wrong with the page as it is now, a line each: every rule of WCAG 2.2 A and AA, and its best practices. The page's policy must have been set aside (bypassCSP). */
export async function accessibilityFaults(page: Page): Promise<string[]> {
  await page.addScriptTag({ path: AXE });
  const { violations } = (await page.evaluate("axe.run()")) as Found;
  return violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html} ${failureSummary ?? ""}`));
}
