/**
 * The feature explorer: a list of latents and the one that is open. Everything it shows comes from
 * a source; text is never markup.
 */

import { useCallback, useEffect, useState } from "preact/hooks";
import type { FeatureSummary } from "../../run-files/feature-summary.ts";
import type { Label } from "../shared/labels.ts";
import type { ExplorerSource, Latent } from "../shared/source.ts";
import { DensityChart } from "./charts.tsx";
import { DocumentView } from "./document.tsx";
import { LatentView } from "./latent.tsx";
import { LatentList } from "./list.tsx";
import { MapView } from "./map.tsx";
import { useKeys, useNeighbours } from "./neighbours.ts";
import { PairBar, useOther } from "./pair.tsx";
import { hashOf, parseRoute, type Route } from "./route.ts";
import { atATime, bare, count, counted, figure, percent, visible } from "./words.ts";

/** From this width on there is room for the list beside the latent. */
const WIDE = "(min-width: 60rem)";

interface Shown {
  readonly source: ExplorerSource;
  /** It stands inside another page, which has a head and a main part of its own. */
  readonly embedded: boolean;
}

export function Explorer({ source, embedded }: Shown) {
  const [summary, setSummary] = useState<FeatureSummary>();
  const [route, setRoute] = useState<Route>(() => parseRoute(location.hash));
  const [latent, setLatent] = useState<Latent>();
  const [failure, setFailure] = useState<string>();
  const [isWide, setWide] = useState(() => matchMedia(WIDE).matches);
  const [isListOpen, openList] = useState(false);
  /** How many latents were opened. */
  const [opened, setOpened] = useState(0);
  /** How often labels were changed here. */
  const [changes, setChanges] = useState(0);
  const fail = useCallback(
    (thrown: unknown) => setFailure(thrown instanceof Error ? thrown.message : String(thrown)),
    [],
  );

  useEffect(() => {
    source.summary().then(setSummary, fail);
    const follow = () => setRoute(parseRoute(location.hash));
    const media = matchMedia(WIDE);
    const adapt = () => setWide(media.matches);
    addEventListener("hashchange", follow);
    media.addEventListener("change", adapt);
    return () => {
      removeEventListener("hashchange", follow);
      media.removeEventListener("change", adapt);
    };
  }, [source, fail]);

  const current = route.latent ?? summary?.first;
  useEffect(() => {
    if (current === undefined) return;
    let isWanted = true;
    setFailure(undefined);
    openList(false);
    source.latent(current).then(
      (next) => {
        if (!isWanted) return;
        setLatent(next);
        setOpened((before) => before + 1);
      },
      (thrown: unknown) => isWanted && fail(thrown),
    );
    return () => {
      isWanted = false;
    };
  }, [source, current, fail]);

  useEffect(() => {
    if (latent !== undefined) document.title = titleOf(latent);
  }, [latent]);

  /** Searching and sorting leave no trail: going back leads to the latent before. */
  const go = useCallback((next: Route) => {
    history.replaceState(null, "", hashOf(next));
    setRoute(next);
  }, []);

  const onLabel = useCallback((of: number, label: Label) => {
    setLatent((before) => (before?.latent === of ? { ...before, label } : before));
    setChanges((before) => before + 1);
  }, []);

  const other = useOther(source, route.other === current ? undefined : route.other, changes, fail);
  const neighbours = useNeighbours(source, route, current, summary);
  useKeys(neighbours);

  const Head = embedded ? "div" : "header";
  const Side = embedded ? "section" : "aside";
  const Body = embedded ? "div" : "main";
  const Foot = embedded ? "div" : "footer";
  if (summary === undefined || current === undefined) {
    return (
      <div class="explorer">
        <Body class="body">
          {failure === undefined ? <p role="status">Loading…</p> : <Failure message={failure} />}
        </Body>
      </div>
    );
  }
  return (
    <div class="explorer">
      <Head class="head">
        {!embedded && (
          <p class="brand">
            <strong>Saetta</strong> features
          </p>
        )}
        <p class="muted">
          {visible(summary.title)}: {counted(summary.latents, "latent")}, {atATime(summary.k)}
          {typeof summary.heldOut?.fvu === "number" && `, held-out FVU ${figure(summary.heldOut.fvu)}`}
        </p>
        <p>
          <a href={hashOf({ ...route, document: undefined, view: route.view === "map" ? "latent" : "map" })}>
            {route.view === "map" ? "Back to the latent" : "Map of latents"}
          </a>
        </p>
      </Head>
      <Side class="side" aria-label="Latents">
        <details open={isWide || isListOpen} onToggle={({ currentTarget }) => !isWide && openList(currentTarget.open)}>
          <summary>{summary.latents === 1 ? "1 latent" : `All ${count(summary.latents)} latents`}</summary>
          <LatentList
            source={source}
            summary={summary}
            route={route}
            current={current}
            changes={changes}
            go={go}
            onFailure={fail}
          />
        </details>
      </Side>
      <Body class="body">
        {failure !== undefined && <Failure message={failure} />}
        {failure === undefined && latent === undefined && <p role="status">Loading…</p>}
        {failure === undefined && latent !== undefined && route.view === "map" && (
          <MapView source={source} route={route} latent={latent} changes={changes} onFailure={fail} />
        )}
        {failure === undefined && latent !== undefined && route.view !== "map" && route.document !== undefined && (
          <DocumentView
            source={source}
            route={route}
            document={route.document}
            latent={{ ...latent, name: latent.label?.name ?? "" }}
            changes={changes}
            onFailure={fail}
          />
        )}
        {failure === undefined && latent !== undefined && route.view !== "map" && route.document === undefined && (
          <>
            <PairBar latent={latent} other={other} route={route} summary={summary} />
            <div class={other === undefined ? undefined : "pairing"}>
              {[latent, ...(other === undefined ? [] : [other])].map((each, i) => (
                <LatentView
                  key={i === 0 ? "first" : "second"}
                  latent={each}
                  summary={summary}
                  isFirst={opened <= 1}
                  isPaired={other !== undefined}
                  neighbours={i === 0 ? neighbours : undefined}
                  linkTo={(to) => hashOf({ ...route, ...(i === 0 ? { latent: to } : { latent: current, other: to }) })}
                  linkBeside={(to) => hashOf({ ...route, latent: each.latent, other: to })}
                  linkToDocument={(document) => hashOf({ ...route, latent: each.latent, document })}
                  relabel={source.relabel}
                  onLabel={onLabel}
                />
              ))}
            </div>
          </>
        )}
      </Body>
      <Foot class="foot">
        <About summary={summary} />
      </Foot>
    </div>
  );
}

function titleOf({ latent, label, on }: Latent): string {
  const words = label === undefined || label.name === "" ? on.slice(0, 3).map(bare).join(", ") : visible(label.name);
  return `Latent ${latent}${words === "" ? "" : `: ${words}`} · Saetta`;
}

function Failure({ message }: { readonly message: string }) {
  return (
    <>
      <h1>This cannot be shown</h1>
      <p role="alert">{message}</p>
    </>
  );
}

function About({ summary }: { readonly summary: FeatureSummary }) {
  const { step, data, rows, model, tensor, fvu, heldOut, l0, dead, latents, density } = summary;
  const unit = summary.text ? "token" : "row";
  const facts: readonly (readonly [string, string])[] = [
    ["autoencoder", `${visible(summary.title)}${step === null ? "" : `, step ${count(step)}`}`],
    ["data", `${counted(rows, "row")} of ${visible(data)}`],
    ...(model === null ? [] : [["model", visible(`${model}${tensor === null ? "" : `, ${tensor}`}`)] as const]),
    ...(heldOut
      ? [
          [
            "held-out FVU",
            `${figure(heldOut.fvu)} on ${counted(heldOut.rows, "row")} that it was not trained on`,
          ] as const,
        ]
      : []),
    ["FVU of these rows", `${figure(fvu)}: sum (x - x̂)² / sum (x - mean of x)²`],
    ["active latents per row", l0.toFixed(2)],
    ["never fire", `${counted(dead, "latent")} (${percent(dead / latents)})`],
  ];
  return (
    <section aria-labelledby="about">
      <h2 id="about">About this autoencoder</h2>
      <div class="columns">
        <dl class="about">
          {facts.map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
        <div>
          <h3>Latents by density, the share of {unit}s on which they fire</h3>
          <DensityChart density={density} dead={dead} unit={unit} />
        </div>
      </div>
    </section>
  );
}
