/** All latents: searched, sorted, a page at a time. */

import { useEffect, useState } from "preact/hooks";
import type { FeatureSummary } from "../../run-files/feature-summary.ts";
import type { ExplorerSource, LatentPage, LatentRow, Sort } from "../shared/source.ts";
import { Name } from "./label.tsx";
import { Tokens } from "./latent.tsx";
import { hashOf, PER_PAGE, type Route, sortOf } from "./route.ts";
import { amount, count, counted, percent } from "./words.ts";

const NAMES: Readonly<Record<Sort, string>> = {
  score: "easiest to read",
  match: "best match",
  density: "density",
  max: "maximum",
  importance: "importance",
  latent: "number",
};

interface Shown {
  readonly source: ExplorerSource;
  readonly summary: FeatureSummary;
  readonly route: Route;
  readonly current: number;
  /** How often labels were changed on this page. */
  readonly changes: number;
  readonly go: (route: Route) => void;
  readonly onFailure: (thrown: unknown) => void;
}

export function LatentList({ source, summary, route, current, changes, go, onFailure }: Shown) {
  const { search, named, descending, page } = route;
  const sort = sortOf(route, summary.text);
  const hasWords = summary.text || summary.logits;
  const [found, setFound] = useState<LatentPage>();
  useEffect(() => {
    let isWanted = true;
    source.latents({ search, named, sort, descending, offset: page * PER_PAGE, count: PER_PAGE }).then(
      (next) => isWanted && setFound(next),
      (thrown: unknown) => isWanted && onFailure(thrown),
    );
    return () => {
      isWanted = false;
    };
  }, [source, search, named, sort, descending, page, changes, onFailure]);
  const pages = Math.ceil((found?.total ?? 0) / PER_PAGE);
  const order = descending ? "largest first" : "smallest first";
  return (
    <div class="list">
      <search>
        <label for="search">Search latents</label>
        <input
          id="search"
          type="search"
          placeholder={hasWords ? "words, names, or a number" : "a number, or a name"}
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
            {Object.entries(NAMES)
              .filter(([value]) => value === sort || isOffered(value, summary.text, search))
              .map(([value, name]) => (
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
        <label class="named">
          <input
            type="checkbox"
            checked={named}
            onChange={({ currentTarget }) => go({ ...route, named: currentTarget.checked, page: 0 })}
          />
          with a name or note only
        </label>
      </search>
      <p class="found" role="status">
        {found === undefined ? "Loading…" : counted(found.total, "latent")}
      </p>
      <ol class="latents" start={page * PER_PAGE + 1}>
        {found?.rows.map((row) => (
          <li key={row.latent}>
            <a
              href={hashOf({ ...route, latent: row.latent })}
              aria-current={row.latent === current ? "true" : undefined}
            >
              <span class="number">{row.latent}</span>
              <span class="words">
                <Name name={row.label?.name} />
                {row.on.length > 0 ? (
                  <Tokens texts={row.on} />
                ) : (
                  <span class="muted">{row.firings === 0 ? "never fires" : counted(row.firings, "firing")}</span>
                )}
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

/**
 * Whether one may sort by it: by ease of reading where there is text, by fit where there is a
 * search.
 */
function isOffered(sort: string, hasText: boolean, search: string): boolean {
  if (sort === "score") return hasText;
  return sort !== "match" || search.trim() !== "";
}

/** What a latent is sorted by; its density where that is no number for people. */
function measure(row: LatentRow, sort: Sort): string {
  if (sort === "max") return amount(row.max);
  return percent(sort === "importance" ? row.importance : row.density);
}
