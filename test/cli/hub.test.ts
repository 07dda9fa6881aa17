/** Commands on hf:// paths, against a Hub on this machine. */

import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FIXTURES } from "../interchange/fixtures.ts";
import { writeActivations } from "../support/activations.ts";
import { COMMIT, type HubServer, repoOf, startHub, TOKEN } from "../support/hub-server.ts";
import { type Ended, start } from "./saetta.ts";

let folder: string;
let hub: HubServer;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-hub-cli-"));
  const rows = Float32Array.from({ length: 400 * 12 }, (_, i) => Math.sin(i * i));
  const acts = await readFile(await writeActivations(join(folder, "acts.h5"), rows, [400, 12]));
  const saelens: Record<string, Uint8Array> = {};
  for (const name of await readdir(join(FIXTURES, "saelens")))
    saelens[`saes/layer_1/${name}`] = await readFile(join(FIXTURES, "saelens", name));
  hub = await startHub(
    repoOf("org/saes", saelens, { private: true }),
    repoOf("datasets/org/acts", { "acts.h5": acts }),
  );
});
afterEach(async () => {
  await hub.close();
  await rm(folder, { recursive: true });
});

function saetta(...args: (string | Record<string, string>)[]): Promise<Ended> {
  const more = args.filter((each) => typeof each === "object");
  const words = args.filter((each) => typeof each === "string");
  const env = {
    ...{
      HF_ENDPOINT: hub.endpoint,
      HF_HOME: join(folder, "hf"),
      HF_TOKEN: TOKEN,
      HF_HUB_OFFLINE: "",
      HF_HUB_CACHE: "",
    },
    ...Object.assign({}, ...more),
  } as Record<string, string>;
  return start(folder, env, ...words).ended;
}

const SAE = "hf://org/saes/saes/layer_1";
const ACTS = "hf://datasets/org/acts/acts.h5";
const reference = ["--engine", "reference"] as const;

describe("hf:// paths", () => {
  it("are inspected without their weights", async () => {
    const { code, out } = await saetta("inspect", "hf://org/saes");
    expect(code).toBe(0);
    expect(out).toMatch(
      /^hf:\/\/org\/saes\/saes\/layer_1: autoencoder of saelens on the Hub, .*\n {2}commit +\w{40}\n/,
    );
    expect(out).toContain("latents  40");
    const dataset = await saetta("inspect", "hf://datasets/org/acts", "--json");
    expect(JSON.parse(dataset.out)).toMatchObject({ kind: "1 file of activations" });
    expect(await readdir(join(folder, "hf")).catch(() => [])).toEqual([]);
    // One that is chosen by a part of its path.
    const chosen = await saetta("eval", "hf://org/saes", ACTS, "--select", "layer_1", ...reference, "--json");
    expect(chosen).toMatchObject({ code: 0 });
  });

  it("are evaluated, reported, imported, exported and trained from, and again offline", async () => {
    const measured = await saetta("eval", SAE, ACTS, ...reference, "--json");
    expect(measured).toMatchObject({ code: 0 });
    const here = await saetta("eval", join(FIXTURES, "saelens"), "acts.h5", ...reference, "--json");
    const metrics = (text: string): unknown => (JSON.parse(text) as { readonly metrics: unknown }).metrics;
    expect(metrics(measured.out)).toEqual(metrics(here.out));
    await hub.close();
    const offline = { HF_HUB_OFFLINE: "1" };
    expect(await saetta("report", SAE, "--data", ACTS, "--out", "page.html", ...reference, offline)).toMatchObject({
      code: 0,
    });
    expect(await saetta("import", SAE, "--out", "mine", "--verify", offline)).toMatchObject({ code: 0 });
    expect(await saetta("encode", SAE, ACTS, "--out", "codes.npz", ...reference, offline)).toMatchObject({ code: 0 });
    expect(await saetta("export", SAE, "--format", "sparsify", "--out", "theirs", offline)).toMatchObject({ code: 0 });
    const trained = await saetta("train", ACTS, "--init", SAE, "--out", "run", ...reference, "--batch", "16", offline);
    expect(trained).toMatchObject({ code: 0 });
    expect(await saetta("eval", "run", ...reference, offline)).toMatchObject({ code: 0 });
    for (const { host, authorization } of hub.seen) if (host === "storage") expect(authorization).toBeUndefined();
  });

  it("say in one line what is missing", async () => {
    const line = async (...args: Parameters<typeof saetta>) => {
      const { code, err } = await saetta(...args);
      expect(err.trimEnd().split("\n")).toHaveLength(1);
      return `${code} ${err.trimEnd()}`;
    };
    expect(await line("eval", SAE, ACTS, ...reference, { HF_TOKEN: "" })).toBe(
      "1 saetta: hf://org/saes: there is no such repo, or it is private; check its name (a dataset is hf://datasets/org/saes), or set HF_TOKEN if it is private",
    );
    expect(await line("eval", SAE, ACTS, ...reference, { HF_HUB_OFFLINE: "1" })).toMatch(
      /^1 saetta: hf:\/\/org\/saes\/saes\/layer_1: is not in the cache \(.*\), and HF_HUB_OFFLINE is set; unset it/,
    );
    expect(await line("eval", "hf://org", ACTS, ...reference)).toBe(
      "2 saetta: hf://org: names no repo; write hf://org/repo/path@revision, for a dataset hf://datasets/org/repo/path",
    );
    expect(await line("eval", "org/saes", ACTS, ...reference)).toBe(
      "1 saetta: org/saes: there is no such file or folder; if it is on the Hugging Face Hub, name it hf://org/saes",
    );
    expect(await line("eval", "hf://org/saes", ACTS, ...reference)).toBe(
      "1 saetta: hf://org/saes: holds an autoencoder: saes/layer_1; name it: hf://org/saes/saes/layer_1",
    );
  });

  it("fetched by two processes at once come once", async () => {
    const both = await Promise.all([1, 2].map((i) => saetta("import", SAE, "--out", `mine-${i}`)));
    for (const each of both) expect(each).toMatchObject({ code: 0 });
    const root = join(folder, "hf/hub/models--org--saes");
    const names = await readdir(join(root, "blobs"));
    expect(names.filter((name) => name.endsWith(".incomplete"))).toEqual([]);
    for (const name of names.filter((each) => each.length === 64)) {
      const bytes = await readFile(join(root, "blobs", name));
      expect(createHash("sha256").update(bytes).digest("hex")).toBe(name);
    }
    const fetches = hub.seen.filter(({ host, url }) => host === "storage" && url.startsWith("/blob/"));
    expect(fetches).toHaveLength(1);
    expect(await readdir(join(root, "snapshots", COMMIT, "saes/layer_1"))).toHaveLength(2);
  });
});
