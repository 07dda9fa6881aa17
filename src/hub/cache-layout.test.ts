/**
 * The cache against one that huggingface_hub made from the same repo. With SAETTA_HF_PYTHON naming
 * a Python that has huggingface_hub, the fixture is written again from it.
 */

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { lstat, mkdtemp, readdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { cache, fetched, server } from "../../test/support/hub-client.ts";
import { COMMIT, repoOf } from "../../test/support/hub-server.ts";

const FIXTURE = fileURLToPath(new URL("fixtures/cache-listing.txt", import.meta.url));
const PYTHON = process.env.SAETTA_HF_PYTHON;

const FILES = {
  "README.md": "# a repo\n",
  "layer_1/config.json": '{"a":1}',
  "layer_1/width_16k/average_l0_82/params.npz": new Uint8Array(5000).map((_, i) => i * 3),
  "layer_1/again.npz": new Uint8Array(5000).map((_, i) => i * 3),
  "empty.txt": "",
  "a b/ü.json": "{}",
};
/** What is fetched: path and revision, in this order. */
const FETCHED: readonly (readonly [string, string])[] = [
  ["README.md", "main"],
  ["layer_1/config.json", "refs/pr/1"],
  ["layer_1/width_16k/average_l0_82/params.npz", "main"],
  ["layer_1/again.npz", COMMIT],
  ["empty.txt", "v1.0"],
  ["a b/ü.json", "main"],
];

/**
 * Every file and link below a folder: its content's SHA-256 or what it links to; the mode of locks,
 * which depends on no umask.
 */
async function listingOf(root: string): Promise<string> {
  const lines: string[] = [];
  for (const entry of await readdir(root, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath, entry.name);
    const { mode } = await lstat(path);
    const name = relative(root, path);
    if (entry.isSymbolicLink()) lines.push(`link ${name} -> ${await readlink(path)}`);
    else if (entry.isDirectory()) lines.push(`folder ${name}`);
    else {
      const hash = createHash("sha256").update(await readFile(path));
      const shown = name.endsWith(".lock") ? `${(mode & 0o777).toString(8)} ` : "";
      lines.push(`file ${name} ${shown}${hash.digest("hex")}`);
    }
  }
  return `${lines.sort((a, b) => (a < b ? -1 : 1)).join("\n")}\n`;
}

const SCRIPT = `
import json, sys
from huggingface_hub import hf_hub_download
for repo, kind, path, revision in json.loads(sys.argv[1]):
    hf_hub_download(repo, path, repo_type=kind, revision=revision)
`;

it("is byte for byte that of huggingface_hub", async () => {
  const repo = repoOf("org/saes", FILES);
  repo.refs.set("refs/pr/1", COMMIT).set("v1.0", COMMIT);
  server.repos.set("org/saes", repo);
  if (PYTHON !== undefined) {
    const theirs = await mkdtemp(join(tmpdir(), "saetta-theirs-"));
    const asked = [
      ...FETCHED.map(([path, revision]) => ["org/saes", "model", path, revision]),
      ["org/acts", "dataset", "a.npy", "main"],
    ];
    await promisify(execFile)(PYTHON, ["-c", SCRIPT, JSON.stringify(asked)], {
      env: { ...process.env, HF_HUB_CACHE: theirs, HF_ENDPOINT: server.endpoint, HF_HUB_DISABLE_TELEMETRY: "1" },
    });
    await writeFile(FIXTURE, await listingOf(theirs));
    await rm(theirs, { recursive: true });
  }
  for (const [path, revision] of FETCHED) await fetched(`hf://org/saes/${path}@${revision}`);
  await fetched("hf://datasets/org/acts/a.npy");
  expect(await listingOf(cache)).toBe(await readFile(FIXTURE, "utf8"));
});
