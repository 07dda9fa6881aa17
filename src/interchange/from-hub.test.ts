import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { describe, expect, it } from "vitest";
import { cache, hub, server } from "../../test/support/hub-client.ts";
import { COMMIT, repoOf } from "../../test/support/hub-server.ts";
import { fetchSae } from "./from-hub.ts";

const REPO = {
  "README.md": "",
  "gemma/layer_0/width_16k/average_l0_82/params.npz": "",
  "gemma/layer_10/width_16k/average_l0_82/params.npz": "",
  "gemma/layer_2/width_16k/average_l0_82/params.npz": "",
  "saelens/cfg.json": "",
  "saelens/sae_weights.safetensors": "",
  "saelens/sparsity.safetensors": "",
  "saelens/log.txt": "",
  "llama/hyperparams.json": "",
  "llama/checkpoints/final.safetensors": "",
  "llama/checkpoints/events.log": "",
  "qwen/layer0.sae.pt": "",
  "qwen/layer1.sae.pt": "",
  "tracer/config.yaml": "",
  "tracer/layer_0.safetensors": "",
  "tracer/layer_1.safetensors": "",
  "tracer/features/layer_0.bin": "",
  "goodfire/one.pt": "",
  "sparse/config.json": "",
  "sparse/layers.1/cfg.json": "",
  "sparse/layers.1/sae.safetensors": "",
  "sparse/layers.10/cfg.json": "",
  "sparse/layers.10/sae.safetensors": "",
  "ours/cfg.json": "",
  "ours/manifest.json": "",
  "ours/sae.safetensors": "",
  "ours/ema.safetensors": "",
  "ours/optimizer.safetensors": "",
  "empty/README.md": "",
};

describe("an autoencoder on the Hub", () => {
  it.each([
    ["saelens", ["cfg.json", "sae_weights.safetensors"]],
    ["saelens/cfg.json", ["cfg.json", "sae_weights.safetensors"]],
    ["saelens/sae_weights.safetensors", ["cfg.json", "sae_weights.safetensors"]],
    ["gemma/layer_2/width_16k/average_l0_82", ["params.npz"]],
    ["gemma/layer_2/width_16k/average_l0_82/params.npz", ["params.npz"]],
    ["llama", ["checkpoints", "checkpoints/final.safetensors", "hyperparams.json"]],
    ["qwen/layer1.sae.pt", ["layer1.sae.pt"]],
    ["tracer/layer_1.safetensors", ["config.yaml", "layer_1.safetensors"]],
    ["goodfire", ["one.pt"]],
    ["ours", ["cfg.json", "ema.safetensors", "manifest.json", "sae.safetensors"]],
  ])("%s is %j, and nothing else is fetched", async (path, files) => {
    server.repos.set("org/many", repoOf("org/many", REPO));
    const local = await fetchSae(`hf://org/many/${path}`, hub());
    const root = join(cache, "models--org--many/snapshots", COMMIT);
    expect(local).toBe(join(root, path));
    const isFile = /\.\w+$/.test(path);
    const folder = isFile ? path.slice(0, -basename(path).length - 1) : path;
    expect((await readdir(join(root, folder), { recursive: true })).sort((a, b) => (a < b ? -1 : 1))).toEqual(files);
  });

  it("has its config in the folder above, of Llama Scope", async () => {
    server.repos.set("org/many", repoOf("org/many", REPO));
    await fetchSae("hf://org/many/llama/checkpoints/final.safetensors", hub());
    expect(await readdir(join(cache, "models--org--many/snapshots", COMMIT, "llama"))).toContain("hyperparams.json");
  });

  it("is chosen by a part of its path, which is no path of the repo", async () => {
    server.repos.set("org/many", repoOf("org/many", REPO));
    const root = join(cache, "models--org--many/snapshots", COMMIT);
    expect(await fetchSae("hf://org/many/layers.10", hub())).toBe(join(root, "sparse/layers.10"));
    expect(await fetchSae("hf://org/many/layer_10/average_l0_82", hub())).toBe(
      join(root, "gemma/layer_10/width_16k/average_l0_82"),
    );
    // The run's config says of all hook points whether they are transcoders.
    expect(await readdir(join(root, "sparse"))).toContain("config.json");
    await expect(fetchSae("hf://org/many/width_16k", hub())).rejects.toThrow(
      'hf://org/many: "width_16k" chooses 3 autoencoders: gemma/layer_0',
    );
    await expect(fetchSae("hf://org/many/layers.7", hub())).rejects.toThrow(
      'hf://org/many: has no autoencoder "layers.7"; choose one of gemma/layer_0',
    );
  });

  it.each([
    [
      "gemma",
      "hf://org/many/gemma: holds 3 autoencoders: layer_0/width_16k/average_l0_82, layer_2/width_16k/average_l0_82, layer_10/width_16k/average_l0_82; name one: hf://org/many/gemma/layer_0/width_16k/average_l0_82",
    ],
    [
      "gemma/layer_2",
      "holds an autoencoder: width_16k/average_l0_82; name it: hf://org/many/gemma/layer_2/width_16k/average_l0_82",
    ],
    ["qwen", "holds 2 autoencoders: layer0.sae.pt, layer1.sae.pt; name one: hf://org/many/qwen/layer0.sae.pt"],
    ["tracer", "holds 2 autoencoders: layer_0.safetensors, layer_1.safetensors; name one"],
    ["", "and 6 more; name one: hf://org/many/gemma/layer_0"],
    ["empty", "hf://org/many/empty: holds no autoencoder: no weights in safetensors, npz or torch files"],
  ])("of many is answered with their names: %s", async (path, message) => {
    server.repos.set("org/many", repoOf("org/many", REPO));
    await expect(fetchSae(`hf://org/many/${path}`, hub())).rejects.toThrow(message);
    expect(server.seen.filter(({ url }) => url.includes("/resolve/"))).toEqual([]);
  });
});
