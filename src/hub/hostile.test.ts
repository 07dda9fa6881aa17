import { mkdir, mkdtemp, readdir, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { cache, fetched, hub, LARGE, server, WEIGHTS } from "../../test/support/hub-client.ts";
import { COMMIT, etagOf, repoOf } from "../../test/support/hub-server.ts";
import { parseHubPath } from "./address.ts";
import { fetchInto, locate } from "./locate.ts";

describe("hostile repos", () => {
  /** A listing with a file of this name, and a file behind every name. */
  function listing(path: string): void {
    server.faults.push(({ url, method }, response) => {
      if (url.includes("/tree/")) response.end(JSON.stringify([{ type: "file", path, size: 2, oid: "0" }]));
      else if (url.includes("resolve")) {
        response.writeHead(200, { etag: '"0123456789"', "content-length": "2", "x-repo-commit": COMMIT });
        response.end(method === "HEAD" ? undefined : "hi");
      } else return undefined;
      return true;
    });
  }

  it.each([
    "../../../../escaped",
    "layer_1/../../../escaped",
    "/tmp/escaped",
    "C:\\escaped",
    "c:/escaped",
    "..\\..\\escaped",
    "a\u0000b",
    "a//b",
    "./a",
    "a/.",
    "\n",
    "x".repeat(300),
  ])("never writes outside of the cache: %j", async (path) => {
    listing(path);
    const root = await fetched("hf://org/saes");
    expect(await readdir(root).catch(() => [])).toEqual([]);
    const place = await locate(hub(), parseHubPath("hf://org/saes"));
    expect(place.unsafe).toBe(1);
    await expect(fetchInto(hub(), place, [{ path, bytes: 2 }])).rejects.toThrow("would not stay in the cache");
  });

  it.each([
    "a b#c?d%20e&f.txt",
    "ü/日本.txt",
    "-rf",
    ".hidden",
    "a@b",
    "...",
  ])("fetches odd names: %j", async (path) => {
    server.repos.set("org/odd", repoOf("org/odd", { [path]: "hi" }));
    const root = await fetched("hf://org/odd");
    expect(await readFile(join(root, path), "utf8")).toBe("hi");
  });

  it.each([
    '"../../escaped"',
    '"a/b"',
    '".."',
    '"x.lock"',
    '"\\\\x"',
    `"${"a".repeat(300)}"`,
  ])("takes no ETag for a path: %s", async (etag) => {
    server.faults.push(({ method }, response) => {
      if (method !== "HEAD") return undefined;
      response.writeHead(200, { etag, "content-length": "2", "x-repo-commit": COMMIT });
      response.end();
      return true;
    });
    await expect(fetched(LARGE)).rejects.toThrow("would not stay in the cache");
  });

  it("takes no commit for a path", async () => {
    server.faults.push(({ url }, response) => {
      if (!url.includes("/revision/")) return undefined;
      response.end('{"sha":"../../../escaped"}');
      return true;
    });
    await expect(fetched(LARGE)).rejects.toThrow("the answer names no commit");
  });

  it("writes through no link that leads out of the repo's folder", async () => {
    const outside = await mkdtemp(join(tmpdir(), "saetta-outside-"));
    for (const [folder, address] of [
      ["snapshots", LARGE],
      ["blobs", LARGE],
      ["refs", LARGE],
      [`snapshots/${COMMIT}/layer_1`, LARGE],
    ] as const) {
      await rm(cache, { recursive: true });
      const at = join(cache, "models--org--saes", folder);
      await mkdir(dirname(at), { recursive: true });
      await symlink(outside, at);
      await expect(fetched(address)).rejects.toThrow("is a link or a file where the cache has a folder");
    }
    const partial = join(cache, "models--org--saes/blobs", `${etagOf({ bytes: WEIGHTS, lfs: true })}.incomplete`);
    await rm(cache, { recursive: true });
    await mkdir(dirname(partial), { recursive: true });
    await symlink(join(outside, "target"), partial);
    await expect(fetched(LARGE)).rejects.toThrow("cannot be written");
    expect(await readdir(outside)).toEqual([]);
    await rm(outside, { recursive: true });
  });

  it("a file that is a folder elsewhere in the listing", async () => {
    server.repos.set("org/odd", repoOf("org/odd", { a: "hi" }));
    const place = await locate(hub(), parseHubPath("hf://org/odd"));
    await fetchInto(hub(), place, place.files);
    server.repos.set("org/odd", repoOf("org/odd", { "a/b": "hi" }));
    await expect(fetchInto(hub(), place, [{ path: "a/b", bytes: 2 }])).rejects.toThrow(
      "is a link or a file where the cache has a folder",
    );
  });
});

describe("listing", () => {
  it("ends, whatever a server says of next pages", async () => {
    server.faults.push(({ url }, response) => {
      if (!url.includes("/tree/")) return undefined;
      response.writeHead(200, { link: `<${server.endpoint}${url}>; rel="next"` });
      response.end("[]");
      return true;
    });
    await expect(locate(hub(), parseHubPath("hf://org/saes"))).rejects.toThrow("has more than 2000 pages");
  });

  it("reads 10,000 files in pages", async () => {
    const files = Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`layer_${i % 26}/f${i}.json`, ""]));
    server.repos.set("org/many", repoOf("org/many", files));
    const place = await locate(hub(), parseHubPath("hf://org/many"));
    expect(place.files).toHaveLength(10_000);
    expect(server.seen.filter(({ url }) => url.includes("/tree/"))).toHaveLength(11);
  });
});
