/** docs/walkthrough.md has the commands of its script, and what they print has the same labels. */

import { execFileSync } from "node:child_process";
import { expect, it } from "vitest";
import { CHILD_MS } from "../support/limits.ts";

it("docs/walkthrough.md is what its commands print", () => {
  const check = () =>
    execFileSync(process.execPath, ["scripts/walkthrough.mjs", "--check"], { encoding: "utf8", timeout: CHILD_MS });
  expect(check()).toBe("");
});
