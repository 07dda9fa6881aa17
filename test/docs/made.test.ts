/** Pages and drawings that are made by scripts/docs.mjs are up to date: npm run docs. */

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { expect, it } from "vitest";

const script = (await import(resolve("scripts/docs.mjs"))) as { madeDocs: () => Promise<Record<string, string>> };

it.each(Object.entries(await script.madeDocs()))("%s is up to date: npm run docs", (path, text) => {
  expect(readFileSync(path, "utf8")).toBe(text);
});
