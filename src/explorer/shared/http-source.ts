/** The features that a server answers with: the page's side of explorerApi. */

import type { FeatureSummary } from "../../run-files/feature-summary.ts";
import type { Label } from "./labels.ts";
import { poster } from "./poster.ts";
import type { Document, ExplorerSource, Latent, LatentMap, LatentPage } from "./source.ts";

/** `api`: where explorerApi answers, such as "/api/features/first". */
export function httpSource(api: string): ExplorerSource {
  const get = async (path: string, missing: string): Promise<unknown> => {
    const answer = await fetch(`${api}/${path}`, { headers: { accept: "application/json" } });
    if (answer.status === 404) throw new Error(missing);
    if (!answer.ok) throw new Error(`The server answered with ${answer.status}.`);
    return answer.json();
  };
  const send = poster(api.replace(/\/features\/[^/]*$/, "/token"));
  const post = async (path: string, body: unknown): Promise<unknown> => {
    const answer = await send(`${api}/${path}`, body);
    if (!answer.ok) throw new Error((await answer.text()).trim() || `The server answered with ${answer.status}.`);
    return answer.json();
  };
  const none = "There are no features of this run yet. Make them with: saetta report RUN --data ACTS";
  return {
    summary: async () => (await get("summary", none)) as FeatureSummary,
    latents: async ({ search, named, sort, descending, offset, count }) => {
      const order = descending ? "down" : "up";
      const words = { search, named: named ? "1" : "0", sort, order, offset: String(offset), count: String(count) };
      return (await get(`latents?${new URLSearchParams(words).toString()}`, none)) as LatentPage;
    },
    latent: async (latent) => (await get(`latents/${latent}`, `There is no latent ${latent}.`)) as Latent,
    document: async (document) => (await get(`documents/${document}`, `There is no document ${document}.`)) as Document,
    map: async () => ((await get("map", "").catch(() => undefined)) ?? undefined) as LatentMap | undefined,
    relabel: async (latent, change) => (await post("labels", { latent, ...change })) as Label,
  };
}
