import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { readEvents, readWandb } from "../../test/support/log-readers.ts";
import { crc32c, maskedCrc32c } from "./crc32c.ts";
import type { LogLine } from "./run-log.ts";
import { frame, restartEvent, scalarsEvent, versionEvent } from "./tensorboard.ts";
import {
  exitBody,
  headerBody,
  historyBody,
  RecordFrames,
  record,
  runBody,
  summaryBody,
  type WandbRun,
} from "./wandb.ts";

/** Written by TensorBoard's and W&B's own code: fixtures/make_fixtures.py. */
const fixture = (name: string): Buffer => readFileSync(new URL(`fixtures/${name}`, import.meta.url));
const { start, lines, run, frames } = JSON.parse(fixture("expected.json").toString()) as {
  readonly start: number;
  readonly lines: readonly {
    readonly step: number;
    readonly wallTime: number;
    readonly values: Record<string, number | string>;
  }[];
  readonly run: Omit<WandbRun, "host" | "startTime">;
  readonly frames: { readonly sizes: readonly number[]; readonly sha256: string };
};
/** "NaN" and "Infinity" are numbers again. */
const LINES: readonly LogLine[] = lines.map(({ values, ...line }) => ({
  ...line,
  values: Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Number(value)])),
}));

describe("CRC-32C", () => {
  it("is that of RFC 3720, and masked as TFRecord has it", () => {
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
    expect(crc32c(Buffer.from("123456789"))).toBe(0xe3069283);
    expect(maskedCrc32c(Buffer.from("123456789"))).toBe(
      (((0xe3069283 >>> 15) | (0xe3069283 << 17)) + 0xa282ead8) >>> 0,
    );
  });
});

describe("an event file", () => {
  it("has the bytes that TensorBoard's own writer gives", () => {
    const first = LINES[0]!.wallTime;
    const events = [versionEvent(first), restartEvent(first, 41), ...LINES.map(scalarsEvent)];
    expect(Buffer.concat(events.map(frame)).toString("hex")).toBe(fixture("events.bin").toString("hex"));
  });

  it("says what was logged, to a reader of its own", () => {
    const [version, restart, ...scalars] = readEvents(fixture("events.bin"));
    expect(version).toMatchObject({ version: "brain.Event:2", step: 0 });
    expect(restart).toMatchObject({ step: 41, session: 1 });
    expect(scalars.map(({ step, wallTime, scalars: values }) => ({ step, wallTime, values }))).toEqual(
      LINES.map(({ values, ...line }) => ({
        ...line,
        values: Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Math.fround(value)])),
      })),
    );
  });
});

describe("a .wandb file", () => {
  const runtime = (line: LogLine) => line.wallTime - start / 1000;

  it("has the bytes that W&B's own writer gives", () => {
    const to = new RecordFrames();
    const last = LINES.at(-1)!;
    const pieces = [
      to.begin(),
      ...[
        record(1, "header", headerBody("0.0.0")),
        record(2, "run", runBody({ ...run, host: "host", startTime: start })),
        ...LINES.map((line, i) => record(3 + i, "history", historyBody(line, runtime(line)))),
        record(6, "summary", summaryBody(last, runtime(last))),
        record(7, "exit", exitBody(0, 61)),
        record(8, "final", []),
        record(9, "footer", []),
      ].flatMap((it) => to.frame(it)),
    ];
    expect(Buffer.concat(pieces).toString("hex")).toBe(fixture("run.bin").toString("hex"));
  });

  it("says what was logged, to a reader of its own", () => {
    const records = readWandb(fixture("run.bin"));
    expect(records.map(({ num, kind }) => `${num} ${kind}`)).toEqual([
      ...["1 header", "2 run", "3 history", "4 history", "5 history", "6 summary", "7 exit", "8 final", "9 footer"],
    ]);
    expect(records[1]!.items).toEqual(run.config);
    expect(records[2]!.items).toEqual({
      ...lines[0]!.values,
      _step: 1,
      _timestamp: LINES[0]!.wallTime,
      _runtime: 1.25,
    });
  });

  it("breaks records at the ends of blocks as W&B's own writer does", () => {
    const to = new RecordFrames();
    const letter = (size: number, i: number) => (i < 7 ? "x" : size === 20 ? "z" : "y");
    const pieces = [
      to.begin(),
      ...frames.sizes.flatMap((size, i) => to.frame(Buffer.from(letter(size, i).repeat(size)))),
    ];
    expect(createHash("sha256").update(Buffer.concat(pieces)).digest("hex")).toBe(frames.sha256);
  });

  it("keeps a failed run's exit code", () => {
    const [exit] = readWandb(Buffer.concat([new RecordFrames().begin(), ...framed(record(1, "exit", exitBody(1, 0)))]));
    expect(exit!.fields.get(1)).toEqual([1]);
  });
});

function framed(data: Uint8Array): Uint8Array[] {
  const to = new RecordFrames();
  to.begin();
  return to.frame(data);
}
