/** Looks at the files while somebody looks at the page, and tells every open stream. */

import { isDeepStrictEqual } from "node:util";
import type { RunSummary } from "./api.ts";
import type { Run } from "./run.ts";
import type { Runs } from "./runs.ts";

export interface WatchTimes {
  /** Milliseconds between looks at the runs that are shown. */
  readonly look: number;
  /** Milliseconds between looks at which runs there are. */
  readonly scan: number;
  /** Milliseconds after which the lines of a run that nobody shows are forgotten. */
  readonly keep: number;
}

const TIMES: WatchTimes = { look: 500, scan: 2000, keep: 60_000 };

/** One open page. */
export interface Watcher {
  /** Ids of the runs that it shows; there may be none of that name. */
  readonly shown: readonly string[];
  /** Called after each look. */
  readonly looked: (summaries: ReadonlyMap<string, RunSummary>) => void;
}

export class Watch {
  readonly runs: Runs;
  readonly #times: WatchTimes;
  readonly #watchers = new Set<Watcher>();
  #summaries: ReadonlyMap<string, RunSummary> = new Map();
  #timer: NodeJS.Timeout | undefined;
  #scanned = Number.NEGATIVE_INFINITY;
  #looking = false;
  #again = false;
  #closed = false;

  constructor(runs: Runs, times: Partial<WatchTimes> = {}) {
    this.runs = runs;
    this.#times = { ...TIMES, ...times };
  }

  get watchers(): number {
    return this.#watchers.size;
  }

  /** Looks at once, and then as long as the watcher stays. Returns what takes it away. */
  add(watcher: Watcher): () => void {
    this.#watchers.add(watcher);
    this.#wake();
    return () => this.#watchers.delete(watcher);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#watchers.clear();
  }

  #wake(): void {
    clearTimeout(this.#timer);
    if (this.#looking) this.#again = true;
    else void this.#look();
  }

  async #look(): Promise<void> {
    this.#looking = true;
    this.#again = false;
    try {
      const now = performance.now();
      const scans = now - this.#scanned >= this.#times.scan;
      if (scans) {
        await this.runs.scan();
        this.#scanned = now;
      }
      const watchers = Array.from(this.#watchers); // who comes meanwhile has not had its runs read
      const shown = this.#shown(watchers);
      await Promise.all(shown.map((run) => run.update()));
      const found = await this.#summarize(scans ? this.runs.all : shown);
      this.#summaries = scans ? found : new Map([...this.#summaries, ...found]);
      for (const watcher of watchers) if (this.#watchers.has(watcher)) watcher.looked(this.#summaries);
      for (const run of this.runs.all) {
        if (run.columns.lines > 0 && performance.now() - run.used > this.#times.keep) await run.unload();
      }
    } finally {
      this.#looking = false;
      // While nobody looks, a last look later lets go of what is kept in memory.
      if (this.#again) void this.#look();
      else if (!this.#closed && (this.#watchers.size > 0 || this.runs.all.some((run) => run.columns.lines > 0))) {
        this.#timer = setTimeout(
          () => void this.#look(),
          this.#watchers.size > 0 ? this.#times.look : this.#times.keep,
        ).unref();
      }
    }
  }

  #shown(watchers: readonly Watcher[]): readonly Run[] {
    const ids = new Set(watchers.flatMap(({ shown }) => shown));
    return Array.from(ids, (id) => this.runs.get(id)).filter((run) => run !== undefined);
  }

  async #summarize(runs: readonly Run[]): Promise<Map<string, RunSummary>> {
    const summaries = await Promise.all(runs.map(async (run) => [run.id, await run.summary()] as const));
    return new Map(
      summaries.map(([id, summary]) => {
        const before = this.#summaries.get(id);
        return [id, isDeepStrictEqual(before, summary) ? before! : summary]; // the same object: nothing to tell
      }),
    );
  }
}
