/** What every log is: lines in, and nothing out. */

/** A line of metrics. `wallTime`: seconds since 1970. */
export interface LogLine {
  readonly step: number;
  readonly wallTime: number;
  readonly values: Readonly<Record<string, number>>;
}

export interface RunLog {
  /** Returns at once, never throws. */
  append(line: LogLine): void;
  /** `exitCode`: 0 for a run that ended as it should. Never rejects. */
  close(exitCode: number): Promise<void>;
}
