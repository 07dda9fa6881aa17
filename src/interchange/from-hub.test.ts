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
    ["", "and 5 more; name one: hf://org/many/gemma/layer_0"],
    ["empty", "hf://org/many/empty: holds no autoencoder: no weights in safetensors, npz or torch files"],
  ])("of many is answered with their names: %s", async (path, message) => {
    server.repos.set("org/many", repoOf("org/many", REPO));
    await expect(fetchSae(`hf://org/many/${path}`, hub())).rejects.toThrow(message);
    expect(server.seen.filter(({ url }) => url.includes("/resolve/"))).toEqual([]);
  });
});
