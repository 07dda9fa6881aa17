import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { FIXTURES } from "../../test/interchange/fixtures.ts";
import { cache, hub, server } from "../../test/support/hub-client.ts";
import { COMMIT, type FakeRepo, repoOf } from "../../test/support/hub-server.ts";
import { inspectHub } from "./hub.ts";
import { inspectionText } from "./print.ts";

/** A repo with a fixture's files below each of the paths. */
async function repoWith(name: string, fixtures: Readonly<Record<string, string>>): Promise<FakeRepo> {
  const files: Record<string, Uint8Array | string> = { "README.md": "" };
  for (const [path, fixture] of Object.entries(fixtures))
    for (const file of await readdir(join(FIXTURES, fixture)))
      files[path === "" ? file : `${path}/${file}`] = await readFile(join(FIXTURES, fixture, file));
  return repoOf(name, files);
}

const bytesSent = (): number =>
  server.seen.filter(({ method, url }) => method === "GET" && url.includes("weights")).length;

describe("inspect of the Hub", () => {
  it("lists what a repo holds, from names and headers by Range, and fetches nothing", async () => {
    server.repos.set(
      "org/many",
      await repoWith("org/many", {
        "layer_2/l0_40": "saelens",
        "layer_10/l0_60": "saelens-jumprelu",
        sparse: "sparsify",
      }),
    );
    const found = await inspectHub("hf://org/many", hub());
    expect(found.facts.commit).toBe(COMMIT);
    expect(found.facts.autoencoders).toMatchObject([
      { path: "layer_2/l0_40", format: "saelens", inputs: 12, latents: 40, l0: 4 },
      { path: "layer_10/l0_60", format: "saelens", inputs: 12, latents: 40, l0: 60 },
      { path: "sparse", format: "sparsify", inputs: 12, latents: 40 },
    ]);
    expect(inspectionText(found)).toContain("hf://org/many: repository of 3 autoencoders");
    expect(inspectionText(found)).toContain("name one: hf://org/many/layer_2/l0_40, or choose with --select");
    for (const { method, url, range } of server.seen)
      if (method === "GET" && url.includes("resolve")) expect(range).toMatch(/^bytes=\d+-\d+$/);
    expect(bytesSent()).toBeGreaterThan(0);
    expect(await readdir(cache)).toEqual([]);
  });

  it("says what one is, by its folder, a file of it, or a part of its path", async () => {
    server.repos.set("org/one", await repoWith("org/one", { "a/layer_2": "saelens", "a/layer_3": "saelens" }));
    for (const path of ["a/layer_2", "a/layer_2/sae_weights.safetensors", "layer_2"]) {
      const { kind, facts } = await inspectHub(`hf://org/one/${path}@main`, hub());
      expect(kind).toBe("autoencoder of saelens on the Hub");
      expect(facts).toMatchObject({ commit: COMMIT, inputs: 12, latents: 40 });
    }
    server.repos.set("org/W64K-L0_50", repoOf("org/W64K-L0_50", { "layer0.sae.pt": "" }));
    expect((await inspectHub("hf://org/W64K-L0_50", hub())).facts).toMatchObject({ l0: 50 });
  });

  it("lists activations of a dataset, answers Parquet, and lists other files", async () => {
    server.repos.set(
      "datasets/org/acts",
      repoOf("datasets/org/acts", { "README.md": "", "b/x-10.npy": "ab", "b/x-2.npy": "a" }),
    );
    expect(await inspectHub("hf://datasets/org/acts", hub())).toMatchObject({
      ...{ kind: "2 files of activations", bytes: 3 },
      facts: {
        files: [
          { path: "b/x-2.npy", bytes: 1 },
          { path: "b/x-10.npy", bytes: 2 },
        ],
      },
    });
    server.repos.set("datasets/org/acts", repoOf("datasets/org/acts", { "data/x.parquet": "" }));
    await expect(inspectHub("hf://datasets/org/acts", hub())).rejects.toThrow("is Parquet, which is not read");
    server.repos.set("org/text", repoOf("org/text", { "a.txt": "x" }));
    expect((await inspectHub("hf://org/text", hub())).kind).toBe(
      "1 file, no autoencoders or activations by their names",
    );
  });

  it("lists what the cache has when offline, and says so", async () => {
    server.repos.set("org/one", await repoWith("org/one", { a: "saelens", b: "saelens" }));
    const { fetchSae } = await import("../interchange/from-hub.ts");
    await fetchSae("hf://org/one/a", hub());
    const before = server.seen.length;
    const { facts, advice } = await inspectHub("hf://org/one", hub({ offline: true }));
    expect(facts).toMatchObject({ inputs: 12, latents: 40 });
    expect(advice).toContain("only what is in the cache is listed");
    expect(server.seen).toHaveLength(before);
  });

  it("says which server has no ranges", async () => {
    server.repos.set("org/one", await repoWith("org/one", { a: "saelens" }));
    server.faults.push(({ url, range }, response) => {
      if (!url.includes("/resolve/") || range === undefined) return undefined;
      response.end(new Uint8Array(100_000));
      return true;
    });
    // Its sizes are those of no header, and it is listed all the same.
    expect((await inspectHub("hf://org/one", hub())).kind).toBe("autoencoder of saelens on the Hub");
  });

  it("reads a listing of 10,000 files in pages, and looks into 500 files at most", async () => {
    const files = Object.fromEntries(
      Array.from({ length: 5000 }, (_, i) => [`layer_${i % 50}/width_16k/average_l0_${i}/params.npz`, ""]),
    );
    const other = Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`notes/${i}.txt`, ""]));
    server.repos.set("org/many", repoOf("org/many", { ...files, ...other }));
    const { facts } = await inspectHub("hf://org/many/layer_7", hub());
    expect(facts.autoencoders).toHaveLength(100);
    expect((facts.autoencoders as readonly object[])[0]).toMatchObject({ l0: 7, latents: 16_384 });
    const before = server.seen.length;
    const all = await inspectHub("hf://org/many", hub());
    expect(all.facts.autoencoders).toHaveLength(5000);
    expect(all.advice).toContain("sizes are read of the first 500; name a folder for others");
    expect(server.seen.length - before).toBeLessThan(2000);
  });
});
