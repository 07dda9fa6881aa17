import { expect, it } from "vitest";
import { hashOf, parseRoute, type Route, START } from "./page/route.ts";

const ROUTES: readonly (readonly [hash: string, route: Route])[] = [
  ["#", START],
  ["#latent=12", { ...START, latent: 12 }],
  [
    "#latent=0&q=a+%26+b%23&sort=max&order=up&page=3",
    { latent: 0, search: "a & b#", sort: "max", descending: false, page: 2 },
  ],
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
