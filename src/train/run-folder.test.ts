import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { claimFolder } from "./run-folder.ts";

it("runs that start in the same second get a folder each", async () => {
  const folder = await mkdtemp(join(tmpdir(), "saetta-claim-"));
  const name = join(folder, "runs", "acts-20261130T120000Z");
  const claimed = await Promise.all([claimFolder(name), claimFolder(name), claimFolder(name)]);
  expect(claimed.toSorted()).toEqual([name, `${name}-2`, `${name}-3`]);
  expect(await readdir(join(folder, "runs"))).toHaveLength(3);
  await rm(folder, { recursive: true });
});
