/** The drawings of docs/images are those that scripts/pictures.mjs draws. */

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { expect, it } from "vitest";

const { PICTURES } = (await import(resolve("scripts/pictures.mjs"))) as { PICTURES: Record<string, string> };

it.each(Object.keys(PICTURES))("docs/images/%s is up to date: node scripts/pictures.mjs", (name) => {
  expect(readFileSync(`docs/images/${name}`, "utf8")).toBe(PICTURES[name]);
});
