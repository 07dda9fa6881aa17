/** `saetta push` against a Hub on this machine. */

import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { writeActivations } from "../support/activations.ts";
import { type FakeFile, type HubServer, repoOf, startHub, TOKEN } from "../support/hub-server.ts";
import { type Ended, start } from "./saetta.ts";

let folder: string;
let hub: HubServer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-push-cli-"));
  const rows = Float32Array.from({ length: 400 * 12 }, (_, i) => Math.sin(i * i));
  await writeActivations(join(folder, "acts.h5"), rows, [400, 12], {
    attributes: { tensor: "blocks.5.hook_resid_post" },
  });
  const train = ["train", "acts.h5", "--latents", "256", "--k", "4", "--batch", "16", "--engine", "reference"];
  const ended = await start(folder, ...train, "--out", "run").ended;
  if (ended.code !== 0) throw new Error(ended.err);
});
afterAll(() => rm(folder, { recursive: true }));
beforeEach(async () => {
  hub = await startHub();
});
afterEach(() => hub.close());

function saetta(env: Record<string, string>, ...args: readonly string[]): Promise<Ended> {
  const home = { HF_ENDPOINT: hub.endpoint, HF_HOME: join(folder, "hf"), HF_TOKEN: TOKEN, HF_HUB_OFFLINE: "" };
  return start(folder, { ...home, ...env }, ...args).ended;
}

function filesOf(name: string): ReadonlyMap<string, FakeFile> {
  const { commits, refs } = hub.repos.get(name)!;
  return commits.get(refs.get("main")!)!;
}
const textOf = (file: FakeFile | undefined): string => Buffer.from(file!.bytes).toString();

describe("saetta push", () => {
  it("uploads what export writes, in parts where the Hub wants parts, with a card", async () => {
    await rm(join(folder, "out"), { recursive: true, force: true });
    expect(await start(folder, "export", "run", "--format", "saelens", "--out", "out").ended).toMatchObject({
      code: 0,
    });
    // The first part fails once.
    let left = 1;
    hub.faults.push(({ method }, response, request) => {
      if (method !== "PUT" || left-- <= 0) return undefined;
      request.resume().on("end", () => response.writeHead(503).end());
      return true;
    });
    const pushed = await saetta({}, "push", "run", "hf://org/new/layer_5", "--private", "--model", "org/lm");
    expect(pushed).toMatchObject({ code: 0 });
    expect(pushed.out).toMatch(
      /^pushed {7}hf:\/\/org\/new\/layer_5: cfg.json, sae_weights.safetensors\ncommit {7}http:.*\/org\/new\/commit\/\w{40}\n$/,
    );
    const files = filesOf("org/new");
    for (const name of ["cfg.json", "sae_weights.safetensors"]) {
      const exported = await readFile(join(folder, "out", name));
      if (name === "sae_weights.safetensors")
        expect(Buffer.compare(files.get(`layer_5/${name}`)!.bytes, exported)).toBe(0);
      expect(files.get(`layer_5/${name}`)!.lfs ?? false).toBe(name.endsWith(".safetensors"));
    }
    const card = textOf(files.get("README.md"));
    expect(card).toMatch(/^---\nlibrary_name: saelens\nbase_model: org\/lm\ntags:\n- sparse-autoencoder\n/);
    expect(card).toContain("of `blocks.5.hook_resid_post` in `org/lm`: topk, 256 latents, 12 inputs, k = 4.");
    expect(card).toMatch(/\| variance that is not explained \(FVU\), held-out rows \| 0\.\d+ \|/);
    expect(card).toContain('SAE.from_pretrained("org/new", "layer_5")');
    expect(card).toContain("| `latents` | 256 |");
    expect(card).not.toContain(folder);
    expect(hub.repos.get("org/new")!.private).toBe(true);
    const puts = hub.seen.filter(({ method }) => method === "PUT");
    expect(puts.length).toBeGreaterThan(4);
    for (const { host, authorization } of puts) {
      expect(host).toBe("storage");
      expect(authorization).toBeUndefined();
    }
    expect(
      (await readdir(tmpdir())).filter((name) => name.startsWith("saetta-push-") && !name.includes("cli")),
    ).toEqual([]);

    // What is there is not sent again, and can be read.
    const before = hub.seen.length;
    expect(await saetta({}, "push", "run", "hf://org/new/again")).toMatchObject({ code: 0 });
    expect(hub.seen.slice(before).filter(({ method }) => method === "PUT")).toEqual([]);
    const measured = await saetta({}, "eval", "hf://org/new/again", "acts.h5", "--engine", "reference", "--json");
    expect(measured).toMatchObject({ code: 0 });
  });

  it("leaves a card of somebody alone, and puts the files of other formats at the root", async () => {
    hub.repos.set("org/mine", repoOf("org/mine", { "README.md": "# mine\n" }));
    const pushed = await saetta({}, "push", "run", "hf://org/mine", "--format", "sparsify", "--private");
    expect(pushed).toMatchObject({ code: 0 });
    expect(pushed.err).toContain("hf://org/mine/README.md was not written by saetta push, and is left as it is");
    expect(pushed.err).toContain("hf://org/mine is there already: --private changes nothing");
    expect(textOf(filesOf("org/mine").get("README.md"))).toBe("# mine\n");
    expect([...filesOf("org/mine").keys()].toSorted()).toEqual(["README.md", "cfg.json", "sae.safetensors"]);
  });

  it.each([
    [["run", "org/new"], {}, 2, "org/new: is no repo of the Hub; write hf://org/repo"],
    [["run", "hf://datasets/org/new"], {}, 2, "hf://datasets/org/new: is a dataset; name a model: hf://org/repo"],
    [
      ["run", "hf://org/new"],
      { HF_TOKEN: "" },
      2,
      "hf://org/new: uploads need a token; set HF_TOKEN to one that may write",
    ],
    [["run", "hf://org/new"], { HF_HUB_OFFLINE: "1" }, 2, "hf://org/new: HF_HUB_OFFLINE is set; unset it to upload"],
    [
      ["run", "hf://org/new"],
      { HF_TOKEN: "hf_wrong" },
      1,
      "hf://org/new: the Hub does not know the token; set HF_TOKEN",
    ],
  ])("%j with %j", async (args: string[], env: Record<string, string>, code, message) => {
    const ended = await saetta(env, "push", ...args);
    expect(ended.code).toBe(code);
    expect(ended.err).toContain(`saetta: ${message}`);
    expect(ended.err.trimEnd().split("\n")).toHaveLength(1);
    expect(hub.repos.size).toBe(0);
  });

  it("says when the token may not write, and what the Hub does not take", async () => {
    hub.faults.push(({ url }, response) => {
      if (!url.includes("/commit/")) return undefined;
      response.writeHead(403, { "x-error-message": "You don't have the rights to push" }).end();
      return true;
    });
    const ended = await saetta({}, "push", "run", "hf://org/new");
    expect(ended.code).toBe(1);
    expect(ended.err).toBe(
      'saetta: hf://org/new: the token may not write to it ("You don\'t have the rights to push"); set HF_TOKEN to one that may\n',
    );
    hub.faults[0] = ({ url }, response) => {
      if (!url.includes("/objects/batch")) return undefined;
      response.end(JSON.stringify({ objects: [{ oid: "0", size: 1 }] }));
      return true;
    };
    expect((await saetta({}, "push", "run", "hf://org/new")).err).toContain("names an object that was not asked about");
  });
});
