import { mkdir, readdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { cache, fetched, hub, LARGE, notes, server, slept, WEIGHTS } from "../../test/support/hub-client.ts";
import { COMMIT, etagOf, TOKEN } from "../../test/support/hub-server.ts";
import { parseHubPath } from "./address.ts";
import { locate } from "./locate.ts";

const blobs = (): Promise<string[]> => readdir(join(cache, "models--org--saes/blobs"));
const contentOf = async (path: string): Promise<Uint8Array> => new Uint8Array(await readFile(path));
const toStorage = (): number => server.seen.filter(({ host }) => host === "storage").length;

/** Sends so many bytes of the file and cuts the connection, `times` times. */
function cutAfter(bytes: number, times: number): void {
  let left = times;
  server.faults.push(({ host, method, range }, response) => {
    if (host !== "storage" || method !== "GET" || left-- <= 0) return undefined;
    const from = Number(/\d+/.exec(range ?? "bytes=0-")![0]);
    response.writeHead(from === 0 ? 200 : 206, {
      "content-length": String(WEIGHTS.length - from),
      "content-range": `bytes ${from}-${WEIGHTS.length - 1}/${WEIGHTS.length}`,
    });
    response.write(WEIGHTS.subarray(from, from + bytes), () => setTimeout(() => response.destroy(), 20));
    return true;
  });
}

/** Answers with a status, `times` times. */
function answers(status: number, headers: Record<string, string>, times: number, body = ""): void {
  let left = times;
  server.faults.push((_, response) => {
    if (left-- <= 0) return undefined;
    response.writeHead(status, headers);
    response.end(body);
    return true;
  });
}

describe("fetching", () => {
  it("puts a file into the layout that all tools share", async () => {
    const path = await fetched(LARGE);
    expect(await contentOf(path)).toEqual(WEIGHTS);
    const repo = join(cache, "models--org--saes");
    const etag = etagOf({ bytes: WEIGHTS, lfs: true });
    expect(path).toBe(join(repo, "snapshots", COMMIT, "layer_1", "weights.safetensors"));
    expect(await readlink(path)).toBe(`../../../blobs/${etag}`);
    expect(await readFile(join(repo, "refs/main"), "utf8")).toBe(COMMIT);
    expect(await readdir(join(repo, "blobs"))).toEqual([etag]);
    expect(await readdir(join(cache, ".locks/models--org--saes"))).toEqual([`${etag}.lock`]);
  });

  it("fetches a folder, a dataset, a revision, and what the Hub serves without sending on", async () => {
    const folder = await fetched("hf://org/saes/layer_1");
    expect(new Set(await readdir(folder))).toEqual(new Set(["config.json", "weights.safetensors"]));
    server.resolveCache = false;
    expect(await readFile(await fetched("hf://datasets/org/acts/a.npy"), "utf8")).toBe("bytes");
    server.repos.get("org/saes")!.refs.set("refs/pr/1", COMMIT);
    const path = await fetched("hf://org/saes/README.md@refs/pr/1");
    expect(await readFile(path, "utf8")).toBe("# a repo\n");
    expect(await readFile(join(cache, "models--org--saes/refs/refs/pr/1"), "utf8")).toBe(COMMIT);
  });

  it("asks for nothing that the cache has", async () => {
    await fetched(LARGE);
    const before = toStorage();
    await fetched(LARGE);
    expect(toStorage()).toBe(before);
  });

  it("fetches a file once, however many ask at the same time", async () => {
    const paths = await Promise.all([fetched(LARGE), fetched(LARGE), fetched(LARGE)]);
    for (const path of paths) expect(await contentOf(path)).toEqual(WEIGHTS);
    expect(toStorage()).toBe(1);
  });

  it("resumes after cuts, from the byte that came last, and says how far it is", async () => {
    cutAfter(6000, 2);
    const told: number[] = [];
    const observer = { note: () => undefined, progress: (_: string, done: number) => told.push(done) };
    expect(await contentOf(await fetched(LARGE, { observer }))).toEqual(WEIGHTS);
    const ranges = server.seen.filter(({ host }) => host === "storage").map(({ range }) => range);
    expect(ranges).toEqual([undefined, "bytes=6000-", "bytes=12000-"]);
    expect(told.at(-1)).toBe(WEIGHTS.length);
  });

  it("resumes what an earlier process left", async () => {
    cutAfter(0, 100);
    cutAfter(5000, 1);
    server.faults.reverse();
    await expect(fetched(LARGE)).rejects.toThrow("after 5000 of 20000 bytes; try again: what came is kept");
    server.faults.length = 0;
    const etag = etagOf({ bytes: WEIGHTS, lfs: true });
    expect(await blobs()).toEqual([`${etag}.incomplete`]);
    expect(await contentOf(await fetched(LARGE))).toEqual(WEIGHTS);
    expect(server.seen.at(-1)!.range).toBe("bytes=5000-");
    expect(await blobs()).toEqual([etag]);
  });

  it("begins again where what was left is of something else, or the server has no ranges", async () => {
    const partial = join(cache, "models--org--saes/blobs", `${etagOf({ bytes: WEIGHTS, lfs: true })}.incomplete`);
    for (const left of [new Uint8Array(700), new Uint8Array(30_000), WEIGHTS.subarray(0, 700)]) {
      await rm(cache, { recursive: true });
      await mkdir(dirname(partial), { recursive: true });
      await writeFile(partial, left);
      expect(await contentOf(await fetched(LARGE))).toEqual(WEIGHTS);
    }
    await rm(cache, { recursive: true });
    await mkdir(dirname(partial), { recursive: true });
    await writeFile(partial, WEIGHTS.subarray(0, 700));
    server.faults.push(({ host }, response) => {
      if (host !== "storage") return undefined;
      response.end(WEIGHTS);
      return true;
    });
    expect(await contentOf(await fetched(LARGE))).toEqual(WEIGHTS);
  });

  it("keeps nothing that has another hash, of large files and of small ones", async () => {
    server.faults.push(({ host }, response) => {
      if (host !== "storage") return undefined;
      response.end(new Uint8Array(WEIGHTS.length));
      return true;
    });
    await expect(fetched(LARGE)).rejects.toThrow(/has the hash \w+, but the Hub says \w+; it was not kept/);
    expect(await blobs()).toEqual([]);
    server.faults[0] = ({ url, method }, response) => {
      if (!url.includes("resolve-cache") || method !== "GET") return undefined;
      response.end("# A repo\n");
      return true;
    };
    await expect(fetched("hf://org/saes/README.md")).rejects.toThrow("has the hash");
    expect(await blobs()).toEqual([]);
  });

  it.each([
    ["too long", WEIGHTS.length + 5, "says 20000 bytes, and sends another number"],
    ["too short", WEIGHTS.length - 5, "says 20000 bytes, and sends another number"],
  ])("refuses a length that is %s", async (_, length, message) => {
    server.faults.push(({ host }, response) => {
      if (host !== "storage") return undefined;
      response.writeHead(200, { "content-length": String(length) });
      response.end(new Uint8Array(length));
      return true;
    });
    await expect(fetched(LARGE)).rejects.toThrow(message);
  });

  it("refuses more bytes than were said, and fewer without a length", async () => {
    let sent = new Uint8Array(WEIGHTS.length + 9);
    server.faults.push(({ host }, response) => {
      if (host !== "storage") return undefined;
      response.write(sent);
      response.end();
      return true;
    });
    await expect(fetched(LARGE)).rejects.toThrow("more than the 20000 bytes came");
    await rm(cache, { recursive: true });
    sent = new Uint8Array(9);
    await expect(fetched(LARGE)).rejects.toThrow("the connection ended after 9 of 20000 bytes");
  });

  it("takes a connection that says nothing any more for cut", async () => {
    let left = 1;
    server.faults.push(({ host }, response) => {
      if (host !== "storage" || left-- <= 0) return undefined;
      response.writeHead(200, { "content-length": String(WEIGHTS.length) });
      response.write(WEIGHTS.subarray(0, 100));
      return true;
    });
    expect(await contentOf(await fetched(LARGE, { patience: 0.3 }))).toEqual(WEIGHTS);
  });

  it("waits as long as it is asked to at 429, and longer each time at 5xx", async () => {
    answers(429, { "retry-after": "7" }, 1);
    answers(429, { ratelimit: '"api";r=0;t=55' }, 1);
    answers(503, {}, 3);
    expect(await contentOf(await fetched(LARGE))).toEqual(WEIGHTS);
    expect(slept.slice(0, 2)).toEqual([7, 56]);
    expect(slept).toHaveLength(5);
    expect(slept[4]!).toBeGreaterThan(slept[2]!);
    expect(notes[0]).toBe("hf://org/saes: the Hub asks to slow down; trying again in 7 s");
  });

  it.each([
    [429, { "retry-after": "3600" }, /too many requests from here; try again in 60 min, or set HF_TOKEN/],
    [502, {}, /the Hub fails with status 502; try again later/],
    [418, {}, /the Hub refuses it with status 418 \("tea"\)/],
  ])("gives up at %i", async (status, headers: Record<string, string>, message) => {
    answers(status, headers, 100, '{"error":"tea"}');
    await expect(fetched(LARGE)).rejects.toThrow(message);
  });

  it("asks again for an address of the storage that ran out", async () => {
    let left = 1;
    server.faults.push(({ host }, response) => {
      if (host !== "storage" || left-- <= 0) return undefined;
      response.writeHead(403);
      response.end();
      return true;
    });
    expect(await contentOf(await fetched(LARGE))).toEqual(WEIGHTS);
  });
});

describe("the token", () => {
  it("goes to the Hub and to no other host", async () => {
    await fetched("hf://org/private/layer_1", { token: TOKEN });
    const other = server.seen.filter(({ host }) => host === "storage");
    expect(other.length).toBeGreaterThan(0);
    for (const { authorization } of other) expect(authorization).toBeUndefined();
    for (const { host, authorization } of server.seen)
      if (host === "hub") expect(authorization).toBe(`Bearer ${TOKEN}`);
  });

  it("does not go to another port of the same host", async () => {
    const elsewhere = server.storage.replace("localhost", "127.0.0.1");
    server.faults.push(({ host, url }, response) => {
      if (host !== "hub" || !url.includes("/resolve/")) return undefined;
      response.writeHead(307, { location: `${elsewhere}${url}` });
      response.end();
      return true;
    });
    await expect(fetched("hf://org/private/README.md", { token: TOKEN })).rejects.toThrow(
      "the host of the files answers with status 403",
    );
    const other = server.seen.filter(({ host }) => host === "storage");
    expect(other.map(({ authorization }) => authorization)).toContain(undefined);
    expect(other.map(({ authorization }) => authorization)).not.toContain(`Bearer ${TOKEN}`);
  });

  it("does not follow a listing to another host", async () => {
    server.faults.push(({ host, url }, response) => {
      if (host !== "hub" || !url.includes("/tree/") || url.includes("next")) return undefined;
      response.writeHead(200, { link: `<${server.storage}/api/models/org/private/tree/main?next=1>; rel="next"` });
      response.end("[]");
      return true;
    });
    await locate(hub({ token: TOKEN }), parseHubPath("hf://org/private/layer_1"));
    expect(server.seen.filter(({ host }) => host === "storage")).toEqual([]);
  });

  it("does not follow from https to http, nor to other kinds of addresses", async () => {
    server.faults.push(({ method }, response) => {
      if (method !== "HEAD") return undefined;
      response.writeHead(302, { location: "file:///etc/passwd" });
      response.end();
      return true;
    });
    await expect(fetched(LARGE)).rejects.toThrow("sends on to an address that is not followed");
  });

  it("is not sent round for ever", async () => {
    server.faults.push(({ method, url }, response) => {
      if (method !== "HEAD") return undefined;
      response.writeHead(302, { location: url });
      response.end();
      return true;
    });
    await expect(fetched(LARGE)).rejects.toThrow("sends on more than 10 times");
  });
});

describe("errors", () => {
  it.each([
    [
      "hf://org/none/a",
      undefined,
      "hf://org/none: there is no such repo, or it is private; check its name (a dataset is hf://datasets/org/none), or set HF_TOKEN if it is private",
    ],
    ["hf://org/none/a", TOKEN, "or give the token access if it is private"],
    ["hf://datasets/org/none/a", undefined, "hf://datasets/org/none: there is no such dataset, or it is private"],
    ["hf://org/private/README.md", undefined, "there is no such repo, or it is private"],
    ["hf://org/saes/README.md@old", undefined, 'hf://org/saes: has no revision "old"; name a branch, tag or commit'],
    [
      "hf://org/saes/layer_2",
      undefined,
      "hf://org/saes/layer_2: there is no such file or folder in the repo; saetta inspect hf://org/saes",
    ],
    [
      "hf://org/gated/README.md",
      undefined,
      "hf://org/gated: gated; accept its terms at URL/org/gated and set HF_TOKEN",
    ],
    ["hf://org/saes/README.md", "hf_wrong", "hf://org/saes: the Hub does not know the token; set HF_TOKEN to one of"],
  ])("%s with %s", async (address, token, message) => {
    await expect(fetched(address, { token })).rejects.toThrow(message.replace("URL", server.endpoint));
  });

  it("gated, for those whose token has not accepted the terms", async () => {
    answers(403, { "x-error-code": "GatedRepo" }, 100);
    await expect(fetched(LARGE, { token: TOKEN })).rejects.toThrow("gated; accept its terms at");
    await expect(fetched(LARGE, { token: TOKEN })).rejects.toThrow("with the account of your token");
  });

  it("nobody there", async () => {
    const endpoint = server.endpoint;
    await server.close();
    await expect(fetched(LARGE, { endpoint })).rejects.toThrow(
      /cannot be reached \(nobody listens there\); check the network, or set HF_HUB_OFFLINE=1/,
    );
  });
});

describe("offline", () => {
  it("uses the cache, and says what it lacks", async () => {
    const path = await fetched("hf://org/saes/layer_1");
    const before = server.seen.length;
    expect(await fetched("hf://org/saes/layer_1", { offline: true })).toBe(path);
    expect(await fetched(LARGE, { offline: true })).toBe(join(path, "weights.safetensors"));
    await expect(fetched("hf://org/saes/README.md", { offline: true })).rejects.toThrow(
      /hf:\/\/org\/saes\/README.md: is not in the cache \(.*\), and HF_HUB_OFFLINE is set; unset it/,
    );
    expect(server.seen).toHaveLength(before);
  });

  it("uses the cache when the Hub cannot be reached, and says so", async () => {
    const path = await fetched("hf://org/saes/layer_1");
    const { endpoint } = server;
    await server.close();
    expect(await fetched("hf://org/saes/layer_1", { endpoint })).toBe(path);
    expect(notes.join()).toContain("what is in the cache is used");
  });
});
