import { expect, it } from "vitest";
import { neighboursOf } from "./page/neighbours.ts";
import { hashOf, parseRoute, type Route, START, sortOf } from "./page/route.ts";
import type { ExplorerSource, LatentQuery, LatentRow } from "./shared/source.ts";

const ROUTES: readonly (readonly [hash: string, route: Route])[] = [
  ["#", START],
  ["#latent=12", { ...START, latent: 12 }],
  [
    "#latent=0&q=a+%26+b%23&sort=max&order=up&page=3",
    { ...START, latent: 0, search: "a & b#", sort: "max", descending: false, page: 2 },
  ],
  ["#latent=3&with=9&named=1", { ...START, latent: 3, other: 9, named: true }],
  ["#latent=3&document=2", { ...START, latent: 3, document: 2 }],
  ["#view=map&q=a", { ...START, view: "map", search: "a" }],
  ["#sort=latent", { ...START, sort: "latent", descending: false }],
  ["#sort=latent&order=down", { ...START, sort: "latent", descending: true }],
];

it.each(ROUTES)("%s is an address and back", (hash, route) => {
  expect(parseRoute(hash)).toEqual(route);
  expect(hashOf(route)).toBe(hash);
});

it.each([
  "",
  "#latent=-1&page=0&sort=worth",
  "#latent=1e3&page=x",
  "#latent=99999999999",
  "#%E0%A4%A",
])("%s asks for nothing", (hash) => {
  expect(parseRoute(hash)).toEqual(START);
});

it("sorts as chosen; else by the search, by what is easy to read, or without text by importance", () => {
  expect(sortOf(START, true)).toBe("score");
  expect(sortOf(START, false)).toBe("importance");
  expect(sortOf({ ...START, search: " cat " }, true)).toBe("match");
  expect(sortOf({ ...START, search: "cat", sort: "max" }, true)).toBe("max");
  expect(sortOf({ ...START, search: " ", sort: "match" }, true)).toBe("score");
});

it("leads from a latent to those before and after it, over the pages of the list", async () => {
  const order = Array.from({ length: 120 }, (_, i) => 119 - i);
  const source = {
    latents: async ({ offset, count }: LatentQuery) => ({
      total: order.length,
      rows: order.slice(offset, offset + count).map((latent) => ({ latent }) as LatentRow),
    }),
  } as unknown as ExplorerSource;
  const of = (latent: number, page: number) => neighboursOf(source, { ...START, page }, latent, true);
  expect(await of(119, 0)).toEqual({ previous: undefined, next: "#latent=118" });
  expect(await of(70, 0)).toEqual({ previous: "#latent=71", next: "#latent=69&page=2" });
  expect(await of(69, 1)).toEqual({ previous: "#latent=70", next: "#latent=68&page=2" });
  expect(await of(0, 2)).toEqual({ previous: "#latent=1&page=3", next: undefined });
  // One that the page of the list does not show.
  expect(await of(5, 1)).toEqual({ previous: undefined, next: "#latent=69&page=2" });
});
