/** The features that a server answers with: the page's side of explorerApi. */

import type { FeatureSummary } from "./format.ts";
import type { ExplorerSource, Latent, LatentPage } from "./source.ts";

/** `prefix`: where explorerApi answers, such as "/api/features/first/". */
export function httpSource(prefix: string): ExplorerSource {
  const get = async (path: string): Promise<unknown> => {
    const answer = await fetch(`${prefix}${path}`, { headers: { accept: "application/json" } });
    const value = (await answer.json()) as { readonly error?: string };
    if (!answer.ok) throw new Error(value.error ?? `The server answered with ${answer.status}.`);
    return value;
  };
  return {
    summary: async () => (await get("summary")) as FeatureSummary,
    latents: async ({ search, sort, descending, offset, count }) => {
      const words = { search, sort, order: descending ? "down" : "up", offset: String(offset), count: String(count) };
      return (await get(`latents?${new URLSearchParams(words).toString()}`)) as LatentPage;
    },
    latent: async (latent) => (await get(`latents/${latent}`)) as Latent,
  };
}
