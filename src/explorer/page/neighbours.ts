/**
 * The latents before and after the open one, in the order of the list; the arrow keys lead there.
 */

import { useEffect, useState } from "preact/hooks";
import type { FeatureSummary } from "../../run-files/feature-summary.ts";
import type { ExplorerSource } from "../shared/source.ts";
import { hashOf, PER_PAGE, type Route, sortOf } from "./route.ts";

/** Addresses of the two; undefined at an end of the list. */
export interface Neighbours {
  readonly previous: string | undefined;
  readonly next: string | undefined;
}

const NONE: Neighbours = { previous: undefined, next: undefined };

export function useNeighbours(
  source: ExplorerSource,
  route: Route,
  current: number | undefined,
  summary: FeatureSummary | undefined,
): Neighbours {
  const [found, setFound] = useState({ of: "", neighbours: NONE });
  const key = hashOf({ ...route, latent: current });
  useEffect(() => {
    if (current === undefined || summary === undefined) return;
    let isWanted = true;
    neighboursOf(source, route, current, summary.text).then(
      (neighbours) => isWanted && setFound({ of: key, neighbours }),
      () => undefined, // the list says what is wrong
    );
    return () => {
      isWanted = false;
    };
  }, [source, summary, key]);
  return found.of === key ? found.neighbours : NONE;
}

/**
 * Leads from one latent to the next by the left and right arrow keys, where nothing else uses them.
 */
export function useKeys({ previous, next }: Neighbours): void {
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
      const [target] = event.composedPath();
      if (target instanceof Element && target.closest("input, select, textarea")) return;
      const to = event.key === "ArrowLeft" ? previous : event.key === "ArrowRight" ? next : undefined;
      if (to === undefined) return;
      event.preventDefault();
      location.hash = to;
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [previous, next]);
}

/**
 * Looks at the page of the list that is shown, and one latent on either side of it. A latent that
 * is not there has the first of the page after it.
 */
export async function neighboursOf(
  source: ExplorerSource,
  route: Route,
  current: number,
  hasText: boolean,
): Promise<Neighbours> {
  const { search, named, descending, page } = route;
  const begin = page * PER_PAGE;
  const offset = Math.max(0, begin - 1);
  const { rows } = await source.latents({
    search,
    named,
    sort: sortOf(route, hasText),
    descending,
    offset,
    count: PER_PAGE + 2,
  });
  const at = rows.findIndex(({ latent }) => latent === current);
  const addressOf = (i: number) => {
    const row = rows[i];
    return row && hashOf({ ...route, latent: row.latent, page: Math.floor((offset + i) / PER_PAGE) });
  };
  return at < 0
    ? { previous: undefined, next: addressOf(begin - offset) }
    : { previous: addressOf(at - 1), next: addressOf(at + 1) };
}
