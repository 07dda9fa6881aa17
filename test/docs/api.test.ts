/** docs/api.md is what scripts/api.mjs writes from the declarations that the package has now. */

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { expect, it } from "vitest";

const { apiPage } = (await import(resolve("scripts/api.mjs"))) as { apiPage: () => Promise<string> };

it("docs/api.md is up to date: npm run build && node scripts/api.mjs", async () => {
  expect(readFileSync("docs/api.md", "utf8")).toBe(await apiPage());
});
