/** The map of latents: each is a point, near those whose decoder rows point its way. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { ExplorerSource, Latent, LatentMap } from "../shared/source.ts";
import { Name } from "./label.tsx";
import { Tokens } from "./latent.tsx";
import { hashOf, type Route } from "./route.ts";
import { counted } from "./words.ts";

const SIZE = 65_535;
/** Pixels of the picture, and of the edge around the places. */
const PIXELS = 1000;
const EDGE = 24;
const KEYS: Readonly<Record<string, readonly [number, number]>> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

interface Shown {
  readonly source: ExplorerSource;
  readonly route: Route;
  readonly latent: Latent;
  readonly changes: number;
  readonly onFailure: (thrown: unknown) => void;
}

export function MapView({ source, route, latent, changes, onFailure }: Shown) {
  const [map, setMap] = useState<LatentMap | "none">();
  const [pointed, setPointed] = useState(latent.latent);
  const [about, setAbout] = useState<Latent>(latent);
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    source.map().then((found) => setMap(found ?? "none"), onFailure);
  }, [source, changes, onFailure]);
  useEffect(() => setPointed(latent.latent), [latent.latent]);
  useEffect(() => {
    let isWanted = true;
    source.latent(pointed).then((next) => isWanted && setAbout(next), onFailure);
    return () => {
      isWanted = false;
    };
  }, [source, pointed, onFailure]);
  const near = useMemo(() => about.nearest.map((other) => other.latent), [about]);
  useEffect(() => {
    if (canvas.current !== null && map !== undefined && map !== "none")
      paint(canvas.current, map, { pointed, near: about.latent === pointed ? near : [] });
  }, [map, pointed, about, near]);
  if (map === undefined) return <p role="status">Loading…</p>;
  const linkTo = (to: number) => hashOf({ ...route, view: "latent", latent: to });
  if (map === "none")
    return (
      <>
        <h1>There is no map</h1>
        <p>The report was made by an older version. Make it again.</p>
      </>
    );
  return (
    <article>
      <h1>Map of {counted(map.x.length, "latent")}</h1>
      <p class="lead">
        Points near each other are latents whose decoder rows point the same way. Point at one, or move with the arrow
        keys; Enter or a click opens it.
      </p>
      {/* biome-ignore lint/a11y/noInteractiveElementToNoninteractiveRole: a picture that takes keys has no other role */}
      <canvas
        ref={canvas}
        class="map"
        width={PIXELS}
        height={PIXELS}
        tabIndex={0}
        role="application"
        aria-label={`Map of ${counted(map.x.length, "latent")}; latent ${pointed} is chosen. Arrow keys choose the next one in their direction, Enter opens it.`}
        onPointerMove={(event) => setPointed(at(map, event) ?? pointed)}
        onClick={(event) => {
          location.hash = linkTo(at(map, event) ?? pointed);
        }}
        onKeyDown={(event) => {
          const direction = KEYS[event.key];
          if (direction !== undefined) setPointed(next(map, pointed, direction));
          else if (event.key === "Enter") location.hash = linkTo(pointed);
          else return;
          event.preventDefault();
        }}
      />
      <p class="bar" role="status">
        <a href={linkTo(about.latent)}>
          <span class="number">{about.latent}</span> <Name name={about.label?.name} />
          <Tokens texts={about.on} />
        </a>
      </p>
      <p class="note">
        Larger and outlined: the chosen latent and its nearest. Filled more strongly: latents with names. Far places in
        the map say little: only neighbourhoods are kept.
      </p>
    </article>
  );
}

const pixel = (place: number) => EDGE + (place / SIZE) * (PIXELS - 2 * EDGE);

interface Chosen {
  readonly pointed: number;
  readonly near: readonly number[];
}

function paint(canvas: HTMLCanvasElement, { x, y, named }: LatentMap, { pointed, near }: Chosen): void {
  const pen = canvas.getContext("2d");
  if (pen === null) return;
  const style = getComputedStyle(canvas);
  const color = (name: string) => style.getPropertyValue(name).trim();
  pen.clearRect(0, 0, PIXELS, PIXELS);
  const dot = (latent: number, radius: number) => {
    pen.beginPath();
    pen.arc(pixel(x[latent]!), pixel(y[latent]!), radius, 0, 2 * Math.PI);
  };
  const size = Math.max(1.2, Math.min(5, 120 / Math.sqrt(x.length)));
  pen.fillStyle = color("--plain");
  pen.globalAlpha = 0.55;
  for (let latent = 0; latent < x.length; latent++) {
    dot(latent, size);
    pen.fill();
  }
  pen.globalAlpha = 1;
  pen.fillStyle = color("--h8");
  for (const latent of named) {
    dot(latent, size + 1.5);
    pen.fill();
  }
  pen.strokeStyle = color("--ink");
  pen.lineWidth = 2;
  for (const latent of near) {
    pen.globalAlpha = 0.5;
    pen.beginPath();
    pen.moveTo(pixel(x[pointed]!), pixel(y[pointed]!));
    pen.lineTo(pixel(x[latent]!), pixel(y[latent]!));
    pen.stroke();
    pen.globalAlpha = 1;
    dot(latent, size + 3);
    pen.stroke();
  }
  pen.lineWidth = 4;
  dot(pointed, size + 6);
  pen.stroke();
}

/** The latent that is nearest to the pointer; undefined where none is near. */
function at(
  { x, y }: LatentMap,
  event: MouseEvent & { readonly currentTarget: HTMLCanvasElement },
): number | undefined {
  const { width, height } = event.currentTarget.getBoundingClientRect();
  const [px, py] = [(event.offsetX / width) * PIXELS, (event.offsetY / height) * PIXELS];
  let [best, least]: [number | undefined, number] = [undefined, 30 ** 2];
  for (let latent = 0; latent < x.length; latent++) {
    const distance = (pixel(x[latent]!) - px) ** 2 + (pixel(y[latent]!) - py) ** 2;
    if (distance < least) [best, least] = [latent, distance];
  }
  return best;
}

/** The nearest latent in a direction: within 45 degrees of it; else the same. */
export function next({ x, y }: LatentMap, from: number, [dx, dy]: readonly [number, number]): number {
  let [best, least] = [from, Number.POSITIVE_INFINITY];
  for (let latent = 0; latent < x.length; latent++) {
    const [ax, ay] = [x[latent]! - x[from]!, y[latent]! - y[from]!];
    const along = ax * dx + ay * dy;
    const across = Math.abs(ax * dy) + Math.abs(ay * dx);
    if (along <= 0 || across > along) continue;
    const distance = along ** 2 + across ** 2;
    if (distance < least) [best, least] = [latent, distance];
  }
  return best;
}
