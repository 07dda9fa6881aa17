import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { folderListing } from "./listing.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "saetta-listing-"));
});
afterEach(() => rm(root, { recursive: true }));

describe("a folder's listing", () => {
  it("has every file below it with its size, through links, without hidden ones", async () => {
    await mkdir(join(root, "layer_0", "width_16k"), { recursive: true });
    await writeFile(join(root, "layer_0", "width_16k", "params.npz"), "12345");
    await writeFile(join(root, "README.md"), "");
    await mkdir(join(root, ".git"));
    await writeFile(join(root, ".git", "config"), "x");
    await symlink(join(root, "layer_0", "width_16k", "params.npz"), join(root, "link.npz"));
    await symlink(root, join(root, "layer_0", "round"));
    const paths = await folderListing(root).entries();
    expect([...paths].sort((a, b) => a.path.localeCompare(b.path))).toEqual([
      { path: "layer_0/width_16k/params.npz", bytes: 5 },
      { path: "link.npz", bytes: 5 },
      { path: "README.md", bytes: 0 },
    ]);
  });

  it("reads a range, and refuses one past the end", async () => {
    await writeFile(join(root, "a"), "0123456789");
    const listing = folderListing(root);
    expect(Buffer.from(await listing.readRange("a", 3, 6)).toString()).toBe("345");
    await expect(listing.readRange("a", 8, 11)).rejects.toThrow(/a: the file ends at byte 10, before byte 11/);
    await expect(listing.readRange("b", 0, 1)).rejects.toThrow(/b: no such file/);
  });
});
