/**
 * TensorBoard event files: Event messages in TFRecord frames. Sources:
 * tensorboard/compat/proto/event.proto and summary.proto (field numbers);
 * tensorflow/core/lib/io/record_writer.h (frames: u64 length, masked CRC-32C of its 8 bytes, data,
 * masked CRC-32C of the data; little-endian).
 */

import { readdir } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { hasCode } from "../util/errors.ts";
import { double, float, integer, string, wrap } from "../util/protobuf.ts";
import { maskedCrc32c } from "./crc32c.ts";
import { LogFile, type LogFileOptions } from "./log-file.ts";
import type { LogLine, RunLog } from "./run-log.ts";

const EVENT = { wallTime: 1, step: 2, fileVersion: 3, summary: 5, sessionLog: 7 };
const SUMMARY = { value: 1 };
const VALUE = { tag: 1, simpleValue: 2 };
const SESSION_LOG = { status: 1 };
/** SessionLog.SessionStatus.START: what stands in earlier files from this step on is void. */
const START = 1;

/** One record of an event file. */
export function frame(data: Uint8Array): Uint8Array {
  const bytes = Buffer.alloc(12 + data.length + 4);
  bytes.writeBigUInt64LE(BigInt(data.length), 0);
  bytes.writeUInt32LE(maskedCrc32c(bytes.subarray(0, 8)), 8);
  bytes.set(data, 12);
  bytes.writeUInt32LE(maskedCrc32c(data), 12 + data.length);
  return bytes;
}

/** The first record of every event file. */
export function versionEvent(wallTime: number): Uint8Array {
  return Buffer.concat([...double(EVENT.wallTime, wallTime), ...string(EVENT.fileVersion, "brain.Event:2")]);
}

/** Tells readers to forget what earlier files say of `step` and later ones. */
export function restartEvent(wallTime: number, step: number): Uint8Array {
  const start = wrap(EVENT.sessionLog, integer(SESSION_LOG.status, START));
  return Buffer.concat([...double(EVENT.wallTime, wallTime), ...integer(EVENT.step, step), ...start]);
}

/**
 * One event with a scalar for each value, in float32, as TensorBoard keeps them. NaN and infinities
 * are values too.
 */
export function scalarsEvent({ wallTime, step, values }: LogLine): Uint8Array {
  const scalars = Object.entries(values).flatMap(([tag, value]) =>
    wrap(SUMMARY.value, [...string(VALUE.tag, tag), ...float(VALUE.simpleValue, value)]),
  );
  return Buffer.concat([
    ...double(EVENT.wallTime, wallTime),
    ...integer(EVENT.step, step),
    ...wrap(EVENT.summary, scalars),
  ]);
}

/**
 * Seconds in the name of the newest event file in `dir`; 0 where there is none. TensorBoard reads
 * the files in the order of their names, and skips one that comes before a file it has read: where
 * the system's clock was set back, a new file is still named after the others.
 */
async function newestIn(dir: string): Promise<number> {
  const names = await readdir(dir);
  return Math.max(0, ...names.map((name) => Number(/^events\.out\.tfevents\.(\d{10})\./.exec(name)?.[1] ?? 0)));
}

/**
 * Opens a new event file in `dir`, named as TensorBoard looks for them. `from`: the step that a run
 * goes on from, 0 for a new one; what earlier files say of later steps is declared void. Rejects
 * when the file cannot be made.
 */
export async function openTensorboard(dir: string, from: number, options: LogFileOptions): Promise<RunLog> {
  const now = Date.now() / 1000;
  const seconds = Math.max(Math.floor(now), (await newestIn(dir)) + 1);
  const stem = `events.out.tfevents.${String(seconds).padStart(10, "0")}.${hostname()}.${process.pid}`;
  let file: LogFile | undefined;
  for (let i = 0; file === undefined; i++) {
    file = await LogFile.create(join(dir, `${stem}.${i}`), options).catch((thrown: unknown) => {
      if (hasCode(thrown, "EEXIST") && i < 1000) return undefined;
      throw thrown;
    });
  }
  const log = file;
  log.append([frame(versionEvent(now))]);
  if (from > 0) log.append([frame(restartEvent(now, from + 1))]);
  return {
    append: (line) => log.append([frame(scalarsEvent(line))]),
    close: () => log.close(),
  };
}
