/** Two latents next to each other. */

import { useEffect, useState } from "preact/hooks";
import type { FeatureSummary } from "../../run-files/feature-summary.ts";
import type { ExplorerSource, Latent } from "../shared/source.ts";
import { hashOf, type Route } from "./route.ts";
import { amount, counted } from "./words.ts";

/** The latent that is shown next to another; undefined: none is, or it is on its way. */
export function useOther(
  source: ExplorerSource,
  number: number | undefined,
  changes: number,
  onFailure: (thrown: unknown) => void,
): Latent | undefined {
  const [found, setFound] = useState<Latent>();
  useEffect(() => {
    if (number === undefined) return;
    let isWanted = true;
    source.latent(number).then(
      (next) => isWanted && setFound(next),
      (thrown: unknown) => isWanted && onFailure(thrown),
    );
    return () => {
      isWanted = false;
    };
  }, [source, number, changes, onFailure]);
  return found?.latent === number ? found : undefined;
}

interface Shown {
  readonly latent: Latent;
  readonly other: Latent | undefined;
  readonly route: Route;
  readonly summary: FeatureSummary;
}

/** Which latent is next to this one, what the two have in common, and the way to another. */
export function PairBar({ latent, other, route, summary }: Shown) {
  return (
    <form
      class="pair-bar"
      onSubmit={(event) => {
        event.preventDefault();
        const given = new FormData(event.currentTarget).get("other");
        if (typeof given === "string" && /^\d{1,9}$/.test(given))
          location.hash = hashOf({ ...route, latent: latent.latent, other: Number(given) });
      }}
    >
      <label>
        Next to latent{" "}
        <input
          key={other?.latent}
          name="other"
          type="number"
          min={0}
          max={summary.latents - 1}
          required
          defaultValue={other === undefined ? undefined : String(other.latent)}
        />
      </label>
      <button type="submit">Show</button>
      {other !== undefined && (
        <>
          <a href={hashOf({ ...route, other: undefined })}>Close {other.latent}</a>
          <span class="muted" role="status">
            {relation(latent, other, summary.text ? "token" : "row")}
          </span>
        </>
      )}
    </form>
  );
}

/** What the lists of either say of the other. */
function relation(a: Latent, b: Latent, unit: string): string {
  const find = <T extends { readonly latent: number }>(of: (latent: Latent) => readonly T[] | undefined) =>
    of(a)?.find(({ latent }) => latent === b.latent) ?? of(b)?.find(({ latent }) => latent === a.latent);
  const near = find(({ nearest }) => nearest);
  const together = find(({ together: all }) => all);
  const parts = [
    near === undefined ? "not among each other's nearest latents" : `cosine ${near.cosine.toFixed(2)}`,
    together === undefined
      ? "not among those that fire together most"
      : `both fire on ${counted(together.firings, unit)}, ${amount(together.lift)} times as often as by chance`,
  ];
  return parts.join("; ");
}
