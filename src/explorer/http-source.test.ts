import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { FeatureSummary } from "../run-files/feature-summary.ts";
import { FEATURES } from "../run-files/names.ts";
import { bytesOf } from "../util/bytes.ts";
import { type ExplorerApi, explorerApi, featuresFile } from "./api.ts";
import { openFeatures } from "./open.ts";
import { httpSource } from "./shared/http-source.ts";
import { FeatureReader } from "./shared/reader.ts";
import { FeatureWriter } from "./write.ts";

const LATENTS = 3;
const SUMMARY: FeatureSummary = {
  title: "runs/a",
  step: null,
  latents: LATENTS,
  k: 1,
  width: 2,
  rows: 100,
  data: "memory",
  model: null,
  tensor: null,
  sequence: null,
  fvu: null,
  l0: 1,
  dead: 0,
  density: [],
  first: 1,
  text: true,
  logits: false,
};

let folder = "";
let server: Server | undefined;
let api: ExplorerApi | undefined;
let address = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-http-"));
  await mkdir(join(folder, "a", FEATURES), { recursive: true });
  const writer = await FeatureWriter.create(featuresFile(join(folder, "a")));
  const latent = {
    contexts: 1,
    histogram: { width: 1, counts: [1] },
    ranges: [],
    tokens: [],
    nearest: [],
    promoted: null,
    suppressed: null,
  };
  const strongest = [{ value: 1, row: 2, text: 0, length: 2, at: 1, active: [1, 1] }];
  await writer.json(
    "latents/0",
    Array.from({ length: LATENTS }, () => ({ ...latent, strongest })),
  );
  await writer.json("text/0", [" a", " b & c?"]);
  await writer.bytes(
    "table",
    Buffer.concat([bytesOf(Uint32Array.of(1, 2, 3)), bytesOf(new Float32Array(3 * LATENTS))]),
  );
  await writer.json(
    "words",
    ["x", "y & z", "y"].map((on) => ({ on: [on], up: [] })),
  );
  await writer.finish(SUMMARY);
  api = explorerApi();
  // As a page's server does it: the parts after the name of the run.
  server = createServer((request, response) => {
    const asked = new URL(request.url ?? "", "http://localhost");
    const [run = "", ...parts] = asked.pathname.replace("/api/features/", "").split("/");
    api?.answer(join(folder, run), parts, asked.searchParams).then(
      (found) => response.writeHead(found === undefined ? 404 : 200).end(JSON.stringify(found)),
      () => response.writeHead(500).end(),
    );
  });
  await new Promise<void>((resolve) => server?.listen(0, "127.0.0.1", resolve));
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/api/features`;
});
afterAll(async () => {
  server?.close();
  server?.closeAllConnections();
  await api?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

describe("httpSource", () => {
  it("gives what the file gives", async () => {
    const source = httpSource(`${address}/a`);
    const path = featuresFile(join(folder, "a"));
    const file = await openFeatures(path);
    const reader = new FeatureReader(file.index.summary, file.read, path);
    expect(await source.summary()).toEqual(SUMMARY);
    for (const latent of [0, 1, 2]) expect(await source.latent(latent)).toEqual(await reader.latent(latent));
    const query = { search: "y & z", sort: "density", descending: true, offset: 0, count: 10 } as const;
    expect(await source.latents(query)).toEqual(await reader.latents(query));
    expect((await source.latents(query)).rows.map(({ latent }) => latent)).toEqual([1]);
    const rising = { ...query, search: "y", descending: false, offset: 1, count: 1 };
    expect((await source.latents(rising)).rows.map(({ latent }) => latent)).toEqual([2]);
    await file.close();
  });

  it("says what is not there, and what to do", async () => {
    await expect(httpSource(`${address}/none`).summary()).rejects.toThrow(
      "There are no features of this run yet. Make them with: saetta report RUN",
    );
    await expect(httpSource(`${address}/a`).latent(3)).rejects.toThrow("There is no latent 3.");
    server?.removeAllListeners("request").on("request", (_, response) => response.writeHead(503).end());
    await expect(httpSource(`${address}/a`).summary()).rejects.toThrow("The server answered with 503.");
  });
});
