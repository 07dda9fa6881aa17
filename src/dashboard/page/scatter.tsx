/** One point per run: an error against what it costs, with the Pareto front. */

import { useEffect, useRef, useState } from "preact/hooks";
import { type Column, type Point, paretoFront, ticksFor } from "./compare-data.ts";
import { brief, briefDuration, figure } from "./format.ts";

/** How the points of a group are drawn: groups differ in shape as well as in colour. */
export interface Mark {
  readonly color: string;
  readonly shape: number;
}

const HEIGHT = 340;
const MARGIN = { left: 56, right: 16, top: 12, bottom: 42 };
const SIZE = 5;
/** Pixels around a point in which the pointer means it. */
const REACH = 18;

interface ScatterProps {
  readonly points: readonly Point[];
  readonly x: Column;
  readonly y: Column;
  readonly log: { readonly x: boolean; readonly y: boolean };
  readonly front: boolean;
  readonly markOf: (point: Point) => Mark;
  /** Runs that are shown in the charts below. */
  readonly isShown: (point: Point) => boolean;
  readonly onPick: (point: Point) => void;
}

export function Scatter({ points, x, y, log, front, markOf, isShown, onPick }: ScatterProps) {
  const holder = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(640);
  const [under, setUnder] = useState<Point | undefined>();
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.max(240, Math.round(entry!.contentRect.width))));
    observer.observe(holder.current!);
    return () => observer.disconnect();
  }, []);
  const best = front ? paretoFront(points) : [];
  const across = axisOf(
    points.map((point) => point.x),
    log.x,
    [MARGIN.left, width - MARGIN.right],
    width < 480 ? 4 : 8,
  );
  const up = axisOf(
    points.map((point) => point.y),
    log.y,
    [HEIGHT - MARGIN.bottom, MARGIN.top],
    6,
  );
  const at = ({ x: px, y: py }: Point) => [across.place(px), up.place(py)] as const;
  const bottom = HEIGHT - MARGIN.bottom;
  /** The point that the pointer means: points may lie over each other. */
  const nearest = ({ offsetX, offsetY }: { offsetX: number; offsetY: number }): Point | undefined => {
    const away = (point: Point) => Math.hypot(at(point)[0] - offsetX, at(point)[1] - offsetY);
    const near = points.filter((point) => away(point) <= REACH);
    return near.toSorted((a, b) => away(a) - away(b))[0];
  };
  const about = `${y.label} against ${x.label}, ${points.length} runs${
    best.length > 0 ? `; on the Pareto front: ${best.map(({ run }) => run.name).join(", ")}` : ""
  }. The table below has the numbers.`;
  return (
    <div class="scatter" ref={holder}>
      {/* biome-ignore lint/a11y/useKeyWithClickEvents: the table has the same by keys */}
      <svg
        width={width}
        height={HEIGHT}
        viewBox={`0 0 ${width} ${HEIGHT}`}
        role="img"
        aria-label={about}
        class={under === undefined ? "" : "over"}
        onPointerMove={(event) => setUnder(nearest(event))}
        onPointerLeave={() => setUnder(undefined)}
        onClick={(event) => {
          const point = nearest(event);
          if (point !== undefined) onPick(point);
        }}
      >
        <g class="grid">
          {up.ticks.map((tick) => (
            <line key={tick} x1={MARGIN.left} x2={width - MARGIN.right} y1={up.place(tick)} y2={up.place(tick)} />
          ))}
          {across.ticks.map((tick) => (
            <line key={tick} x1={across.place(tick)} x2={across.place(tick)} y1={MARGIN.top} y2={bottom} />
          ))}
        </g>
        <g class="ticks">
          {up.ticks.map((tick) => (
            <text key={tick} x={MARGIN.left - 7} y={up.place(tick) + 4} text-anchor="end">
              {wordsOf(y, tick)}
            </text>
          ))}
          {across.ticks.map((tick) => (
            <text key={tick} x={across.place(tick)} y={bottom + 17} text-anchor="middle">
              {wordsOf(x, tick)}
            </text>
          ))}
          <text class="label" x={(MARGIN.left + width - MARGIN.right) / 2} y={HEIGHT - 6} text-anchor="middle">
            {x.label}
          </text>
          <text class="label" transform={`translate(13 ${(MARGIN.top + bottom) / 2}) rotate(-90)`} text-anchor="middle">
            {y.label}
          </text>
        </g>
        {best.length > 1 && <path class="front" d={`M${best.map((point) => at(point).join(" ")).join("L")}`} />}
        {points.map((point) => {
          const [px, py] = at(point);
          const { color, shape } = markOf(point);
          const onFront = best.includes(point);
          return (
            <g key={point.run.id} class={isShown(point) ? "point shown" : "point"}>
              {onFront && <circle class="ring" cx={px} cy={py} r={SIZE + 4} />}
              <path d={shapeAt(shape, px, py)} fill={color} />
            </g>
          );
        })}
      </svg>
      <p class="readout" aria-hidden="true">
        {under === undefined ? (
          <span class="muted">
            {best.length > 0 ? "Ringed: on the Pareto front. " : ""}A click on a point shows its curves below.
          </span>
        ) : (
          <>
            <b>{under.run.name}</b> {x.label} {figure(under.x)}, {y.label} {figure(under.y)}
          </>
        )}
      </p>
    </div>
  );
}

interface Axis {
  readonly ticks: readonly number[];
  readonly place: (value: number) => number;
}

/** An axis that holds the values with some room around them, over these pixels. */
function axisOf(values: readonly number[], log: boolean, [from, to]: readonly [number, number], wanted: number): Axis {
  const to0 = (value: number) => (log ? Math.log10(value) : value);
  const back = (value: number) => (log ? 10 ** value : value);
  const places = values.map(to0);
  let [least, most] = [Math.min(...places), Math.max(...places)];
  if (!Number.isFinite(least)) [least, most] = log ? [0, 1] : [0, 1];
  const room = (most - least) * 0.06 || Math.abs(least) * 0.1 || 0.5;
  [least, most] = [least - room, most + room];
  return {
    ticks: ticksFor(back(least), back(most), log, wanted),
    place: (value) => from + ((to0(value) - least) / (most - least)) * (to - from),
  };
}

function wordsOf({ name }: Column, value: number): string {
  if (name === "elapsed_s") return briefDuration(value);
  return Math.abs(value) >= 1000 ? brief(value) : figure(value);
}

/** Number of shapes that a reader can tell apart. */
export const SHAPES = 6;

/** The outline of a point. */
export function shapeAt(shape: number, x: number, y: number): string {
  const polygon = (corners: readonly (readonly [number, number])[]) =>
    `M${corners.map(([dx, dy]) => `${x + dx * SIZE} ${y + dy * SIZE}`).join("L")}Z`;
  switch (shape % SHAPES) {
    case 1:
      return polygon([
        [-0.9, -0.9],
        [0.9, -0.9],
        [0.9, 0.9],
        [-0.9, 0.9],
      ]);
    case 2:
      return polygon([
        [0, -1.2],
        [1.1, 0.8],
        [-1.1, 0.8],
      ]);
    case 3:
      return polygon([
        [0, -1.3],
        [1.1, 0],
        [0, 1.3],
        [-1.1, 0],
      ]);
    case 4:
      return polygon([
        [0, 1.2],
        [1.1, -0.8],
        [-1.1, -0.8],
      ]);
    case 5: {
      const [thin, long] = [0.4, 1.2];
      return polygon([
        [-thin, -long],
        [thin, -long],
        [thin, -thin],
        [long, -thin],
        [long, thin],
        [thin, thin],
        [thin, long],
        [-thin, long],
        [-thin, thin],
        [-long, thin],
        [-long, -thin],
        [-thin, -thin],
      ]);
    }
    default:
      return `M${x - SIZE} ${y}a${SIZE} ${SIZE} 0 1 0 ${2 * SIZE} 0a${SIZE} ${SIZE} 0 1 0 ${-2 * SIZE} 0Z`;
  }
}
