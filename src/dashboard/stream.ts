/**
 * Server-sent events for one open page. What it has been told is remembered here; what is not sent
 * yet because its reader is slow comes together later.
 */

import type { ServerResponse } from "node:http";
import { VERSION } from "../util/version.ts";
import type { Events, RunDetails, RunSummary, Scale } from "./api.ts";
import type { Run } from "./run.ts";
import type { Watch, Watcher } from "./watch.ts";

export interface StreamOptions {
  readonly shown: readonly string[];
  /** Pieces of a whole run. */
  readonly points: number;
  readonly scale: Scale;
}

/** The browser waits so long before it connects again, in milliseconds. */
const RETRY = 1000;
/** Something is sent at least so often, so that both sides notice when the other is gone. */
const ALIVE = 15_000;
/** A reader that takes nothing for so long is gone. */
const PATIENCE = 60_000;

/** What a page has of a run. */
interface Sent {
  readonly truncations: number;
  readonly lines: number;
  readonly pieces: number;
  readonly details: RunDetails;
}

export class EventStream implements Watcher {
  readonly shown: readonly string[];
  readonly #response: ServerResponse;
  readonly #watch: Watch;
  readonly #options: StreamOptions;
  readonly #summaries = new Map<string, RunSummary>();
  readonly #sent = new Map<string, Sent>();
  #written = performance.now();
  #blocked: number | undefined;

  constructor(response: ServerResponse, watch: Watch, options: StreamOptions) {
    this.shown = options.shown;
    this.#response = response;
    this.#watch = watch;
    this.#options = options;
    response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no" });
    response.write(`retry: ${RETRY}\n\n`);
    response.on("drain", () => {
      this.#blocked = undefined;
    });
    response.on("error", () => response.destroy()); // its reader went away
    this.#send("hello", { version: VERSION });
  }

  looked(summaries: ReadonlyMap<string, RunSummary>): void {
    if (this.#blocked !== undefined) {
      if (performance.now() - this.#blocked > PATIENCE) this.#response.destroy();
      return;
    }
    const { runs } = this.#watch;
    const gone = Array.from(this.#summaries.keys()).filter((id) => runs.get(id) === undefined);
    const changed = Array.from(summaries.values()).filter(({ id }) => runs.get(id) !== undefined);
    this.#sendRuns(changed, gone);
    for (const id of this.shown) {
      const run = runs.get(id);
      if (run === undefined) this.#sent.delete(id);
      else this.#sendRun(run);
    }
    if (performance.now() - this.#written > ALIVE) this.#send("runs", { runs: [], gone: [] });
  }

  #sendRuns(all: readonly RunSummary[], gone: readonly string[]): void {
    const first = this.#summaries.size === 0;
    const changed = all.filter((summary) => this.#summaries.get(summary.id) !== summary);
    for (const id of gone) this.#summaries.delete(id);
    for (const summary of changed) this.#summaries.set(summary.id, summary);
    if (first || changed.length + gone.length > 0) this.#send("runs", { runs: changed, gone });
  }

  #sendRun(run: Run): void {
    const { columns } = run;
    const { points, scale } = this.#options;
    const { lines, truncations } = columns;
    const before = this.#sent.get(run.id);
    const { details } = run;
    if (details !== before?.details) this.#send("details", details);
    // What came piece by piece is finer than it need be: once there is twice as much as asked for
    // it is sent anew.
    const anew = before === undefined || before.truncations !== truncations || before.pieces > 2 * points;
    if (!anew && lines === before.lines) {
      this.#sent.set(run.id, { ...before, details });
      return;
    }
    const share = anew ? 1 : (lines - before.lines) / lines;
    const series = columns.pieces(run.id, Math.ceil(points * share), scale, anew ? 0 : before.lines, lines);
    this.#send(anew ? "series" : "append", series);
    this.#sent.set(run.id, { truncations, lines, details, pieces: (anew ? 0 : before.pieces) + series.step.length });
  }

  #send<Name extends keyof Events>(name: Name, data: Events[Name]): void {
    this.#write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`); // JSON has no line feeds
  }

  #write(text: string): void {
    this.#written = performance.now();
    if (!this.#response.write(text)) this.#blocked ??= performance.now();
  }
}
