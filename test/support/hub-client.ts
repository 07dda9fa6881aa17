/**
 * A client of the Hub of the tests, with a cache for each test. Waits take no time and are noted.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach } from "vitest";
import { parseHubPath } from "../../src/hub/address.ts";
import { type Hub, hubOf } from "../../src/hub/hub.ts";
import { fetchInto, locate } from "../../src/hub/locate.ts";
import { type HubServer, repoOf, startHub } from "./hub-server.ts";

export let server: HubServer;
export let cache: string;
export let slept: number[];
export let notes: string[];

export const WEIGHTS = new Uint8Array(20_000).map((_, i) => i * 7);
const FILES = { "README.md": "# a repo\n", "layer_1/config.json": '{"a":1}', "layer_1/weights.safetensors": WEIGHTS };

beforeEach(async () => {
  server = await startHub(
    repoOf("org/saes", FILES),
    repoOf("org/gated", FILES, { gated: true }),
    repoOf("org/private", FILES, { private: true }),
    repoOf("datasets/org/acts", { "a.npy": "bytes" }),
  );
  cache = await mkdtemp(join(tmpdir(), "saetta-hub-"));
  [slept, notes] = [[], []];
});
afterEach(async () => {
  await server.close();
  await rm(cache, { recursive: true, force: true });
});

export function hub(more: Partial<Hub> = {}): Hub {
  return hubOf({
    ...{ endpoint: server.endpoint, cache, token: undefined, offline: false },
    observer: { progress: () => undefined, note: (text) => notes.push(text) },
    sleep: (seconds) => {
      slept.push(seconds);
      return Promise.resolve();
    },
    ...more,
  });
}

export async function fetched(address: string, more: Partial<Hub> = {}): Promise<string> {
  const at = hub(more);
  const place = await locate(at, parseHubPath(address));
  const { path } = place.address;
  return fetchInto(at, place, place.isFolder ? place.files : place.files.filter((each) => each.path === path));
}

export const LARGE = "hf://org/saes/layer_1/weights.safetensors";
