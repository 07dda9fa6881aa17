/**
 * What the page shows, in its address: a link to it shows the same.
 * "#latent=12&with=99&q=can&named=1&sort=density&order=up&page=3".
 */

import { SORTS, type Sort } from "../shared/source.ts";

/** Latents on a page of the list. */
export const PER_PAGE = 50;

export interface Route {
  /** undefined: the first one, as the summary names it. */
  readonly latent: number | undefined;
  /** The latent next to it; undefined: none. */
  readonly other: number | undefined;
  /** The whole text that is shaded by the latent; undefined: the latent itself is shown. */
  readonly document: number | undefined;
  readonly view: "latent" | "map";
  readonly search: string;
  /** Only latents that have a name or a note. */
  readonly named: boolean;
  /** undefined: none was chosen. */
  readonly sort: Sort | undefined;
  readonly descending: boolean;
  /** From 0. */
  readonly page: number;
}

export const START: Route = {
  latent: undefined,
  other: undefined,
  document: undefined,
  view: "latent",
  search: "",
  named: false,
  sort: undefined,
  descending: true,
  page: 0,
};

export function parseRoute(hash: string): Route {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const whole = (name: string) => (/^\d{1,9}$/.test(given.get(name) ?? "") ? Number(given.get(name)) : undefined);
  const sort = SORTS.find((each) => each === given.get("sort"));
  return {
    latent: whole("latent"),
    other: whole("with"),
    document: whole("document"),
    view: given.get("view") === "map" ? "map" : "latent",
    search: given.get("q") ?? "",
    named: given.get("named") === "1",
    sort,
    descending: given.has("order") ? given.get("order") !== "up" : sort !== "latent",
    page: Math.max(0, (whole("page") ?? 1) - 1),
  };
}

/**
 * What the list is sorted by: as chosen; else by how well latents fit the search, how easy they are
 * to read, or, where there is no text to read, their importance.
 */
export function sortOf({ sort, search }: Route, hasText: boolean): Sort {
  const isSearch = search.trim() !== "";
  if (sort !== undefined && (sort !== "match" || isSearch)) return sort;
  if (isSearch) return "match";
  return hasText ? "score" : "importance";
}

/** The address of a route, without what is as it is at the start. */
export function hashOf({ latent, other, document, view, search, named, sort, descending, page }: Route): string {
  const words = new URLSearchParams();
  if (latent !== undefined) words.set("latent", String(latent));
  if (other !== undefined) words.set("with", String(other));
  if (document !== undefined) words.set("document", String(document));
  if (view !== "latent") words.set("view", view);
  if (search !== "") words.set("q", search);
  if (named) words.set("named", "1");
  if (sort !== undefined) words.set("sort", sort);
  if (descending !== (sort !== "latent")) words.set("order", descending ? "down" : "up");
  if (page > 0) words.set("page", String(page + 1));
  return `#${words.toString()}`;
}
