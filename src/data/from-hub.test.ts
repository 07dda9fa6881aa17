import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { describe, expect, it } from "vitest";
import { hub, server } from "../../test/support/hub-client.ts";
import { COMMIT, repoOf } from "../../test/support/hub-server.ts";
import { fetchActivations } from "./from-hub.ts";
import { filesOf } from "./shards.ts";

/** The files that an address means, fetched, without their folder. */
async function fetched(files: Readonly<Record<string, string>>, address: string): Promise<string[]> {
  server.repos.set("datasets/org/acts", repoOf("datasets/org/acts", files));
  const path = await fetchActivations(address, hub());
  return (await filesOf(path)).files.map((file) => file.split(`/${COMMIT}/`)[1]!);
}

const seenFiles = (): string[] =>
  server.seen
    .filter(({ url, method }) => url.includes("/resolve/") && method === "GET")
    .map(({ url }) => basename(url));

describe("activations on the Hub", () => {
  const SHARDS = { "README.md": "", "acts-1.npy": "a", "acts-10.npy": "b", "acts-2.npy": "c", "x/other.npy": "d" };

  it("are a file, the files of a folder, or those of a pattern; nothing else is fetched", async () => {
    expect(await fetched(SHARDS, "hf://datasets/org/acts/acts-2.npy")).toEqual(["acts-2.npy"]);
    expect(seenFiles()).toEqual(["acts-2.npy"]);
    expect(await fetched(SHARDS, "hf://datasets/org/acts")).toEqual(["acts-1.npy", "acts-2.npy", "acts-10.npy"]);
    expect(await fetched(SHARDS, "hf://datasets/org/acts/x@main")).toEqual(["x/other.npy"]);
    expect(await fetched(SHARDS, "hf://datasets/org/acts/acts-1*.npy")).toEqual(["acts-1.npy", "acts-10.npy"]);
    expect(seenFiles()).not.toContain("README.md");
  });

  it("are the files of an index", async () => {
    const index = { weight_map: { a: "m-1.safetensors", b: "m-2.safetensors" } };
    const files = { "m.safetensors.index.json": JSON.stringify(index), "m-1.safetensors": "", "m-2.safetensors": "" };
    expect(await fetched(files, "hf://datasets/org/acts/m.safetensors.index.json")).toEqual([
      "m-1.safetensors",
      "m-2.safetensors",
    ]);
  });

  it("are those of a dataset that save_to_disk wrote", async () => {
    const state = JSON.stringify({ _data_files: [{ filename: "data-0.arrow" }] });
    const dataset = { "train/state.json": state, "train/dataset_info.json": "{}", "train/data-0.arrow": "x" };
    expect(await fetched(dataset, "hf://datasets/org/acts")).toEqual(["train/data-0.arrow"]);
    expect(await fetched(dataset, "hf://datasets/org/acts/train")).toEqual(["train/data-0.arrow"]);
  });

  it.each([
    [
      { "data/train-0.parquet": "" },
      "",
      /acts: is Parquet, which is not read; convert it: datasets.load_dataset\("org\/acts", split="train"\)/,
    ],
    [{ "data/train-0.parquet": "" }, "/data/train-0.parquet", /is Parquet, which is not read/],
    [
      { "a.npy": "", "b.h5": "" },
      "",
      /the folder has files of several kinds \(npy, HDF5\); name those that are meant, such as 'hf:\/\/datasets\/org\/acts\/\*.npy'/,
    ],
    [
      { "x/a.npy": "", "y/b.npy": "" },
      "",
      /has its files of activations in x, y; name one of them: hf:\/\/datasets\/org\/acts\/x/,
    ],
    [{ "README.md": "" }, "", /hf:\/\/datasets\/org\/acts: the folder has no files of activations/],
    [{ "a.npy": "" }, "/b*.npy", /no file matches/],
    [{ "a.npy": "" }, "/b.npy", /there is no such file or folder in the repo/],
    [
      {
        "a/state.json": "",
        "a/dataset_info.json": "",
        "b/state.json": "",
        "b/dataset_info.json": "",
        "dataset_dict.json": "",
      },
      "",
      /holds splits a, b: name one; such as hf:\/\/datasets\/org\/acts\/b/,
    ],
  ])("%j with %j: %s", async (files: Record<string, string>, path, message) => {
    await expect(fetched(files, `hf://datasets/org/acts${path}`)).rejects.toThrow(message);
    expect(seenFiles()).toEqual([]);
  });

  it("are read from the cache afterwards", async () => {
    await fetched(SHARDS, "hf://datasets/org/acts/acts-2.npy");
    const path = await fetchActivations("hf://datasets/org/acts/acts-2.npy", hub({ offline: true }));
    expect(await readFile(path, "utf8")).toBe("c");
  });
});
