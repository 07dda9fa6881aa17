/** All latents: searched, sorted, a page at a time. */

import { useEffect, useState } from "preact/hooks";
import type { ExplorerSource, LatentPage, LatentRow, Sort } from "../shared/source.ts";
import { Tokens } from "./latent.tsx";
import { hashOf, type Route } from "./route.ts";
import { amount, count, percent } from "./words.ts";

const A_PAGE = 50;

const NAMES: Readonly<Record<Sort, string>> = {
  score: "easiest to read",
  density: "density",
  max: "maximum",
  importance: "importance",
  latent: "number",
};

interface Shown {
  readonly source: ExplorerSource;
  readonly route: Route;
  readonly current: number;
  readonly go: (route: Route) => void;
  readonly onFailure: (thrown: unknown) => void;
}

export function LatentList({ source, route, current, go, onFailure }: Shown) {
  const { search, sort, descending, page } = route;
  const [found, setFound] = useState<LatentPage>();
  useEffect(() => {
    let isWanted = true;
    source.latents({ search, sort, descending, offset: page * A_PAGE, count: A_PAGE }).then(
      (next) => isWanted && setFound(next),
      (thrown: unknown) => isWanted && onFailure(thrown),
    );
    return () => {
      isWanted = false;
    };
  }, [source, search, sort, descending, page, onFailure]);
  const pages = Math.ceil((found?.total ?? 0) / A_PAGE);
  const order = descending ? "largest first" : "smallest first";
  return (
    <div class="list">
      <search>
        <label for="search">Search latents</label>
        <input
          id="search"
          type="search"
          placeholder="a word, or a number"
          autocomplete="off"
          value={search}
          onInput={({ currentTarget }) => go({ ...route, search: currentTarget.value, page: 0 })}
        />
        <div class="row">
          <label for="sort">Sort by</label>
          <select
            id="sort"
            value={sort}
            onChange={({ currentTarget }) => {
              const next = currentTarget.value as Sort;
              go({ ...route, sort: next, descending: next !== "latent", page: 0 });
            }}
          >
            {Object.entries(NAMES).map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
          <button
            type="button"
            aria-label={`Order: ${order}`}
            title={order}
            onClick={() => go({ ...route, descending: !descending, page: 0 })}
          >
            {descending ? "↓" : "↑"}
          </button>
        </div>
      </search>
      <p class="found" role="status">
        {found === undefined ? "Loading…" : `${count(found.total)} ${found.total === 1 ? "latent" : "latents"}`}
      </p>
      <ol class="latents" start={page * A_PAGE + 1}>
        {found?.rows.map((row) => (
          <li key={row.latent}>
            <a
              href={hashOf({ ...route, latent: row.latent })}
              aria-current={row.latent === current ? "true" : undefined}
            >
              <span class="number">{row.latent}</span>
              <span class="words">
                {row.firings === 0 ? <span class="muted">never fires</span> : <Tokens texts={row.on} />}
              </span>
              <span class="muted">{measure(row, sort)}</span>
            </a>
          </li>
        ))}
      </ol>
      {pages > 1 && (
        <nav class="row" aria-label="Pages of latents">
          <button type="button" disabled={page === 0} onClick={() => go({ ...route, page: page - 1 })}>
            Previous
          </button>
          <span>
            page {count(page + 1)} of {count(pages)}
          </span>
          <button type="button" disabled={page + 1 >= pages} onClick={() => go({ ...route, page: page + 1 })}>
            Next
          </button>
        </nav>
      )}
    </div>
  );
}

/** What a latent is sorted by; its density where that is no number for people. */
function measure(row: LatentRow, sort: Sort): string {
  if (sort === "max") return amount(row.max);
  return percent(sort === "importance" ? row.importance : row.density);
}
