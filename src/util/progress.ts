/**
 * How far a long job is, on stderr: on a terminal one line that is rewritten, elsewhere a plain
 * line every ten seconds. Rate and time left are those of the last ten seconds, so that a slow
 * start does not spoil them. Nothing is coloured, so NO_COLOR has nothing to turn off.
 */

import { formatCount, formatDuration } from "./format.ts";

export { formatCount, formatDuration } from "./format.ts";

const WINDOW_MS = 10_000;
const PLAIN_MS = 10_000;
const TERMINAL_MS = 100;
/** A rate over less than this is noise. */
const SETTLED_MS = 500;

export interface ProgressOptions {
  /** What is being done, in a word: "train". */
  readonly label: string;
  /** How many units there are; undefined while nobody knows. */
  readonly total?: number | undefined;
  /** What is counted: "tokens". */
  readonly unit: string;
  /** Units that were done before this job began, as when a run is resumed. */
  readonly start?: number;
  readonly stream?: Stream;
  /** A clock in milliseconds. */
  readonly now?: () => number;
}

/** What a progress line is written to. */
export interface Stream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
  on(event: "error", listener: () => void): unknown;
}

export interface ProgressLine {
  /**
   * `done` units so far; `note` is put at the end of the line ("loss 0.31"). Cheap: may be called
   * at every step.
   */
  update(done: number, note?: string): void;
  /** Takes the line off the terminal. */
  done(): void;
}

const watched = new WeakSet<Stream>();

export function createProgressLine(options: ProgressOptions): ProgressLine {
  const { label, total, unit, start = 0, stream = process.stderr, now = () => performance.now() } = options;
  const terminal = stream.isTTY === true && process.env.TERM !== "dumb";
  if (!watched.has(stream)) {
    watched.add(stream);
    stream.on("error", () => {}); // a reader that went away must not end the job
  }
  const samples = [{ at: now(), done: start }];
  let shown = terminal ? Number.NEGATIVE_INFINITY : now();

  return {
    update(done, note = "") {
      const at = now();
      if (at - shown < (terminal ? TERMINAL_MS : PLAIN_MS)) return;
      shown = at;
      while (samples.length > 1 && at - samples[1]!.at >= WINDOW_MS) samples.shift();
      const oldest = samples[0]!;
      samples.push({ at, done });
      const rate = at - oldest.at >= SETTLED_MS ? ((done - oldest.done) * 1000) / (at - oldest.at) : 0;
      const parts = [`${label}: ${formatCount(done)}${total === undefined ? "" : ` of ${formatCount(total)}`} ${unit}`];
      if (rate > 0) parts.push(`${formatCount(rate)} ${unit}/s`);
      if (rate > 0 && total !== undefined) parts.push(`${formatDuration(Math.max(0, total - done) / rate)} left`);
      if (note !== "") parts.push(note);
      const line = parts.join(", ");
      stream.write(terminal ? `\r\u001b[2K${line.slice(0, (stream.columns || 80) - 1)}` : `${line}\n`);
    },
    done() {
      if (terminal && samples.length > 1) stream.write("\r\u001b[2K");
    },
  };
}
