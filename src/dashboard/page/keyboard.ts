/** A chart without a mouse: the cursor by arrow keys, zoom by plus and minus. */

import type uPlot from "uplot";
import type { Zoom } from "./address.ts";

/** Does what the key says. Returns false when it says nothing. */
export function moved(plot: uPlot, key: string, zoomTo: (zoom: Zoom) => void): boolean {
  const x = plot.data[0];
  const [first, last] = visible(plot);
  if (last < first) return false;
  const at = plot.cursor.idx ?? last + 1;
  const step = Math.max(1, Math.round((last - first) / 100));
  const places: Readonly<Record<string, number>> = {
    ArrowLeft: at - step,
    ArrowRight: at + step,
    PageUp: at - 10 * step,
    PageDown: at + 10 * step,
    Home: first,
    End: last,
  };
  const place = Object.hasOwn(places, key) ? places[key] : undefined;
  if (place !== undefined) {
    const to = Math.max(first, Math.min(last, place));
    const left = Math.round(plot.valToPos(x[to]!, "x"));
    // Its types leave out the last: whether the charts in step with this one follow.
    (plot.setCursor as (at: { left: number; top: number }, tell: boolean, publish: boolean) => void)(
      { left, top: plot.over.clientHeight / 2 },
      true,
      true,
    );
    return true;
  }
  if (key === "+" || key === "=" || key === "-") {
    const factor = key === "-" ? 2 : 0.5;
    const { min, max } = plot.scales.x!;
    const middle = x[Math.max(first, Math.min(last, at))]!;
    const [from, to] = [middle + (min! - middle) * factor, middle + (max! - middle) * factor];
    const everything = from <= x[0]! && to >= x.at(-1)!;
    zoomTo(everything ? undefined : [Math.max(x[0]!, from), Math.min(x.at(-1)!, to)]);
    return true;
  }
  return false;
}

/** Indices of the points between the edges. */
function visible(plot: uPlot): readonly [first: number, last: number] {
  const x = plot.data[0];
  const { min, max } = plot.scales.x!;
  let first = 0;
  let last = x.length - 1;
  while (first < last && x[first]! < (min ?? Number.NEGATIVE_INFINITY)) first++;
  while (last > first && x[last]! > (max ?? Number.POSITIVE_INFINITY)) last--;
  return [first, last];
}
