/** All that the page knows and all that its reader chose; components draw it. */

import type { RunDetails, RunSummary, Scale, Series } from "../api.ts";
import { addressOf, parseAddress, type Zoom } from "./address.ts";
import { append, type RunSeries, seriesOf, stepAt } from "./series.ts";
import { loadSettings, type Settings, saveSettings } from "./settings.ts";
import { type Connection, listen } from "./stream.ts";

/** Runs shown at once at most; the server has the same bound. */
export const MOST_SHOWN = 16;
/** Browsers refuse an address that changes too often. */
const ADDRESS_MS = 250;
/** Pieces asked for: two pixels each are enough. */
const pointsFor = (width: number) => (width < 600 ? 250 : 500);

export class Model {
  connection: Connection = "connecting";
  version = "";
  /** Whether the server has said which runs there are. */
  listed = false;
  readonly runs = new Map<string, RunSummary>();
  readonly details = new Map<string, RunDetails>();
  settings: Settings = loadSettings();
  zoom: Zoom;
  /**
   * In the order in which they were chosen, each at its place; a place that was left is empty.
   * Places give colours, so a run keeps its own.
   */
  #places: (string | undefined)[];
  readonly #series = new Map<string, RunSeries>();
  /** The same runs nearer, while zoomed. */
  readonly #closer = new Map<string, RunSeries>();
  readonly #listeners = new Set<() => void>();
  #unlisten: () => void = () => undefined;
  #frame = 0;
  #addressTimer = 0;

  constructor() {
    const { runs, view, zoom } = parseAddress(location.search);
    this.#places = runs.slice(0, MOST_SHOWN);
    this.settings = { ...this.settings, ...view };
    this.zoom = zoom;
    this.#connect();
  }

  get shown(): readonly { readonly id: string; readonly place: number }[] {
    return this.#places.flatMap((id, place) => (id === undefined ? [] : [{ id, place }]));
  }

  series(id: string): RunSeries | undefined {
    return (this.zoom === undefined ? undefined : this.#closer.get(id)) ?? this.#series.get(id);
  }

  /** The least and the most that each metric of the shown runs came to. */
  get extents(): { name: string; least: number; most: number }[] {
    const found = new Map<string, { name: string; least: number; most: number }>();
    for (const { id } of this.shown) {
      for (const [name, { min, max }] of this.#series.get(id)?.metrics ?? []) {
        const extent = found.get(name) ?? { name, least: Number.POSITIVE_INFINITY, most: Number.NEGATIVE_INFINITY };
        for (const value of min) if (value !== null) extent.least = Math.min(extent.least, value);
        for (const value of max) if (value !== null) extent.most = Math.max(extent.most, value);
        found.set(name, extent);
      }
    }
    return Array.from(found.values());
  }

  /** Calls back, once a frame at most, when anything changed. Returns what ends that. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  show(id: string, on: boolean): void {
    if (on === this.#places.includes(id) || (on && this.shown.length >= MOST_SHOWN)) return;
    if (on) {
      const free = this.#places.indexOf(undefined);
      this.#places[free < 0 ? this.#places.length : free] = id;
    } else {
      this.#places = this.#places.map((each) => (each === id ? undefined : each));
      this.#forget(id);
    }
    this.#reconnect();
  }

  /** Shows this run alone. */
  showOnly(id: string): void {
    for (const each of this.shown) if (each.id !== id) this.#forget(each.id);
    this.#places = [id];
    this.#reconnect();
  }

  set(change: Partial<Settings>): void {
    const { axis, logX } = this.settings;
    this.settings = { ...this.settings, ...change };
    saveSettings(this.settings);
    if (this.settings.axis !== axis) this.zoomTo(undefined);
    if (this.settings.logX !== logX) this.#reconnect();
    this.#writeAddressSoon();
    this.#changed();
  }

  zoomTo(zoom: Zoom): void {
    this.zoom = zoom;
    this.#closer.clear();
    if (zoom !== undefined) for (const { id } of this.shown) void this.#fetchCloser(id, zoom);
    this.#writeAddressSoon();
    this.#changed();
  }

  close(): void {
    window.clearTimeout(this.#addressTimer);
    this.#unlisten();
  }

  #forget(id: string): void {
    for (const map of [this.details, this.#series, this.#closer]) map.delete(id);
  }

  get #scale(): Scale {
    return this.settings.logX ? "log" : "linear";
  }

  #reconnect(): void {
    this.#writeAddress();
    this.#connect();
    this.#changed();
  }

  #writeAddress(): void {
    window.clearTimeout(this.#addressTimer);
    const runs = this.shown.map(({ id }) => id);
    history.replaceState(undefined, "", addressOf(runs, this.settings, this.zoom));
  }

  #writeAddressSoon(): void {
    window.clearTimeout(this.#addressTimer);
    this.#addressTimer = window.setTimeout(() => this.#writeAddress(), ADDRESS_MS);
  }

  #connect(): void {
    this.#unlisten();
    this.#unlisten = listen(
      { shown: this.shown.map(({ id }) => id), points: pointsFor(innerWidth), scale: this.#scale },
      {
        connection: (state) => {
          this.connection = state;
          this.#changed();
        },
        hello: ({ version }) => {
          this.version = version;
          this.listed = false;
        },
        runs: ({ runs, gone }) => this.#list(runs, gone),
        details: (details) => {
          this.details.set(details.run, details);
          this.#changed();
        },
        series: (sent) => {
          this.#series.set(sent.run, seriesOf(sent));
          if (this.zoom !== undefined) void this.#fetchCloser(sent.run, this.zoom);
          this.#changed();
        },
        append: (sent) => this.#append(sent),
      },
    );
  }

  #list(runs: readonly RunSummary[], gone: readonly string[]): void {
    if (!this.listed) this.runs.clear();
    this.listed = true;
    for (const id of gone) {
      this.runs.delete(id);
      this.#forget(id);
    }
    for (const run of runs) this.runs.set(run.id, run);
    const newest = Array.from(this.runs.values()).toSorted((a, b) => (b.written ?? 0) - (a.written ?? 0))[0];
    if (this.shown.length === 0 && newest !== undefined && !location.search.includes("run=")) this.showOnly(newest.id);
    this.#changed();
  }

  #append(sent: Series): void {
    const series = this.#series.get(sent.run);
    if (series === undefined) return;
    append(series, sent);
    this.#changed();
  }

  async #fetchCloser(id: string, zoom: readonly [number, number]): Promise<void> {
    const series = this.#series.get(id);
    if (series === undefined) return;
    const [from, to] = zoom.map((value) => stepAt(series, this.settings.axis, value));
    const query = new URLSearchParams({
      from: String(from),
      to: String(to),
      points: String(pointsFor(innerWidth)),
      scale: this.#scale,
    });
    const answer = await fetch(`/api/runs/${encodeURIComponent(id)}/series?${query}`).catch(() => undefined);
    if (answer?.ok !== true || this.zoom !== zoom) return; // what is there is shown
    const closer = (await answer.json()) as Series;
    if (this.zoom !== zoom) return;
    this.#closer.set(id, seriesOf(closer));
    this.#changed();
  }

  #changed(): void {
    if (this.#frame !== 0) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      for (const listener of this.#listeners) listener();
    });
  }
}
