/**
 * A features file, or a comparison, as one HTML file that needs nothing else: opened from disk or
 * served from anywhere, it asks for nothing.
 */

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { deflateRawSync } from "node:zlib";
import { atomicWrite } from "../util/atomic-write.ts";
import { SaettaError } from "../util/errors.ts";
import type { FeatureFile } from "./open.ts";
import type { Comparison, Side } from "./shared/comparison.ts";
import type { LatentName } from "./shared/format.ts";
import { LABELS_CHUNK, type Label } from "./shared/labels.ts";

/** Where the build puts the script and the style of each page. */
const ASSETS = new URL("./page/", import.meta.url);
const COMPARISON_ASSETS = new URL("./compare/", import.meta.url);

export interface HtmlOptions {
  /** Names and notes as they are now; default: none. */
  readonly labels?: ReadonlyMap<number, Label>;
  /** Where the built script and style are. */
  readonly assets?: URL;
}

/** The page of a features file. Throws SaettaError when it cannot be written. */
export async function writeHtml(
  features: FeatureFile,
  out: string,
  { labels = new Map(), assets = ASSETS }: HtmlOptions = {},
): Promise<void> {
  const { summary, chunks } = features.index;
  const page = { title: `Features of ${summary.title}`, script: "static.js", style: "static.css" };
  await writePage(out, page, assets, async (chunk) => {
    await chunk("index", deflated({ summary }));
    if (labels.size > 0) await chunk(LABELS_CHUNK, deflated([...labels]));
    for (const name of Object.keys(chunks)) await chunk(name, await features.read(name));
  });
}

/** The page of a comparison. Throws SaettaError when it cannot be written. */
export async function writeComparisonHtml(
  comparison: Comparison,
  names: Readonly<Record<Side, readonly LatentName[]>>,
  out: string,
  assets = COMPARISON_ASSETS,
): Promise<void> {
  const title = `${comparison.names.a} and ${comparison.names.b}`;
  await writePage(out, { title, script: "compare.js", style: "compare.css" }, assets, async (chunk) => {
    await chunk("comparison", deflated(comparison));
    await chunk("names", deflated(names));
  });
}

const deflated = (value: unknown) => deflateRawSync(JSON.stringify(value), { level: 9 });

/**
 * Writes a page to `out`, aside and then renamed; `data` writes its chunks. Its policy lets it run
 * its own script and use its own style, and nothing else: no request, no frame, no form.
 */
async function writePage(
  out: string,
  page: { readonly title: string; readonly script: string; readonly style: string },
  assets: URL,
  data: (chunk: (name: string, bytes: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<void> {
  const [script, style] = await Promise.all([asset(page.script, assets), asset(page.style, assets)]);
  await atomicWrite(out, async (bytes) => {
    const write = (text: string) => bytes(Buffer.from(text));
    await write(head(page.title, script, style));
    await data((name, held) => write(chunk(name, held)));
    // After the data, so that all of it is there.
    await write(`<script>${script}</script>\n</body>\n</html>\n`);
  });
}

function head(title: string, script: string, style: string): string {
  const policy = [
    "default-src 'none'",
    `script-src '${hashOf(script)}'`,
    `style-src '${hashOf(style)}'`,
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
  ].join("; ");
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>${escaped(title)}</title>
<style>${style}</style>
</head>
<body>
<div id="explorer"><noscript>This page shows its data with its own script, which is turned off.</noscript></div>
`;
}

/** Base64 holds no "<", and a script of this type is data. */
function chunk(name: string, bytes: Uint8Array): string {
  return `<script type="text/plain" id="${escaped(name)}">${Buffer.from(bytes).toString("base64")}</script>\n`;
}

function hashOf(text: string): string {
  return `sha256-${createHash("sha256").update(text).digest("base64")}`;
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

async function asset(name: string, assets: URL): Promise<string> {
  const text = await readFile(new URL(name, assets), "utf8").catch((cause: unknown) => {
    throw new SaettaError("a part of Saetta is missing", {
      where: new URL(name, assets).pathname,
      mend: "npm run build",
      cause,
    });
  });
  // What would end the element that it stands in.
  if (/<\/(script|style)|<!--/i.test(text))
    throw new SaettaError("cannot stand in a page", { where: new URL(name, assets).pathname });
  return text.trimEnd();
}
