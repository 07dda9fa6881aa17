/**
 * What the page shows, in its address: the runs, and zoom, axis and smoothing where they are not as
 * they begin. A link to it shows the same.
 */

import { AXES, DEFAULTS, type Settings } from "./settings.ts";

/** What is shown of an axis: everything, or from here to there in its own units. */
export type Zoom = readonly [from: number, to: number] | undefined;

type View = Pick<Settings, "axis" | "logX" | "smoothing">;

export interface Address {
  readonly runs: readonly string[];
  /** undefined: the address says nothing of it, so it is as the reader chose. */
  readonly view: View | undefined;
  readonly zoom: Zoom;
}

export function parseAddress(search: string): Address {
  const given = new URLSearchParams(search);
  const axis = AXES.find((each) => each === given.get("axis"));
  const smoothing = numberIn(given.get("smoothing"));
  const [from, to, ...more] = (given.get("zoom") ?? "").split("_").map(numberIn);
  const isZoom = from !== undefined && to !== undefined && from < to && more.length === 0;
  const isView = axis !== undefined || given.has("log") || smoothing !== undefined || isZoom;
  return {
    runs: given.getAll("run"),
    view: isView
      ? {
          axis: axis ?? DEFAULTS.axis,
          logX: given.get("log") === "x",
          smoothing: smoothing !== undefined && smoothing >= 0 && smoothing <= 100 ? smoothing : DEFAULTS.smoothing,
        }
      : undefined,
    zoom: isZoom ? [from, to] : undefined,
  };
}

/** "/?run=a&run=b&axis=tokens&log=x&smoothing=35&zoom=1000_2500". */
export function addressOf(runs: readonly string[], { axis, logX, smoothing }: View, zoom: Zoom): string {
  const query = new URLSearchParams(runs.map((id) => ["run", id]));
  // A zoom is in the units of the axis.
  if (axis !== DEFAULTS.axis || zoom !== undefined) query.set("axis", axis);
  if (logX) query.set("log", "x");
  if (smoothing !== DEFAULTS.smoothing) query.set("smoothing", String(smoothing));
  if (zoom !== undefined) query.set("zoom", zoom.map((value) => Number(value.toPrecision(9))).join("_"));
  return query.size > 0 ? `/?${query}` : "/";
}

function numberIn(text: string | null): number | undefined {
  return text !== null && /^-?\d{1,20}(\.\d{1,20})?(e[+-]?\d{1,3})?$/.test(text) ? Number(text) : undefined;
}
