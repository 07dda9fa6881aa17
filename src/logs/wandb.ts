/**
 * A Weights & Biases run as its own client leaves it when offline, for `wandb sync` to upload: a
 * folder with a log of Record messages. Sources: wandb/proto/wandb_internal.proto (field numbers);
 * wandb/sdk/internal/datastore.py and https://github.com/google/leveldb/blob/main/doc/log_format.md
 * (frames: blocks of 32 KiB that begin with 7 bytes of W&B's own; a record, in as many pieces as
 * blocks it touches: CRC-32 of type and data, u16 length, u8 type, data; little-endian. The
 * checksum is zlib's, and neither LevelDB's nor masked).
 */

import { mkdir, readdir } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { hasCode } from "../util/errors.ts";
import { integer, string, wrap } from "../util/protobuf.ts";
import { VERSION } from "../util/version.ts";
import { LogFile, type LogFileOptions } from "./log-file.ts";
import type { LogLine, RunLog } from "./run-log.ts";

const RECORD = { num: 1, history: 2, summary: 3, run: 17, exit: 18, final: 20, header: 21, footer: 22 };
const HEADER = { versionInfo: 1 };
const VERSION_INFO = { producer: 1 };
const RUN = { runId: 1, project: 3, config: 4, displayName: 8, host: 13, startTime: 17 };
const TIMESTAMP = { seconds: 1, nanos: 2 };
const UPDATES = { update: 1 };
const HISTORY = { item: 1, step: 2 };
const STEP = { num: 1 };
const EXIT = { exitCode: 1, runtime: 2 };
const ITEM = { key: 1, valueJson: 16 };

const BLOCK = 32 * 1024;
const HEAD = 7;
const FULL = 1;
const FIRST = 2;
const MIDDLE = 3;
const LAST = 4;

/** Frames records one after the other. Holds the place in the block, nothing else. */
export class RecordFrames {
  /** Bytes so far. */
  #at = 0;

  /** What a file begins with: ":W&B", the low half of CRC-32("Weights & Biases"), version 0. */
  begin(): Uint8Array {
    this.#at = HEAD;
    return Uint8Array.of(0x3a, 0x57, 0x26, 0x42, 0xe1, 0xbe, 0);
  }

  /**
   * The pieces of a record, and the zeros before them where the rest of a block is too short for a
   * head.
   */
  frame(data: Uint8Array): Uint8Array[] {
    const pieces: Uint8Array[] = [];
    let done = 0;
    let begun = false; // seven bytes left in a block hold a first piece without data
    for (let isLast = false; !isLast; ) {
      const room = BLOCK - (this.#at % BLOCK);
      if (room < HEAD) {
        pieces.push(new Uint8Array(room));
        this.#at += room;
        continue;
      }
      const part = data.subarray(done, done + room - HEAD);
      isLast = done + part.length === data.length;
      const piece = Buffer.alloc(HEAD + part.length);
      piece[6] = begun ? (isLast ? LAST : MIDDLE) : isLast ? FULL : FIRST;
      begun = true;
      piece.writeUInt16LE(part.length, 4);
      piece.set(part, HEAD);
      piece.writeUInt32LE(crc32(piece.subarray(6)), 0);
      pieces.push(piece);
      done += part.length;
      this.#at += piece.length;
    }
    return pieces;
  }
}

export interface WandbRun {
  /** Eight letters and digits, one run's for good. */
  readonly id: string;
  readonly project: string;
  readonly name: string;
  /** Every choice made: any JSON. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly host: string;
  /** Milliseconds since 1970. */
  readonly startTime: number;
}

type Pieces = readonly Uint8Array[];

/** A Record around one of its kinds; `num` counts from 1. */
export function record(num: number, kind: keyof typeof RECORD, body: Pieces): Uint8Array {
  return Buffer.concat([...integer(RECORD.num, num), ...wrap(RECORD[kind], body)]);
}

export function headerBody(version: string): Pieces {
  return wrap(HEADER.versionInfo, string(VERSION_INFO.producer, `saetta ${version}`));
}

export function runBody({ id, project, name, config, host, startTime }: WandbRun): Pieces {
  const items = Object.entries(config).flatMap(([key, value]) => wrap(UPDATES.update, item(key, value)));
  const seconds = Math.floor(startTime / 1000);
  return [
    ...string(RUN.runId, id),
    ...string(RUN.project, project),
    ...wrap(RUN.config, items),
    ...string(RUN.displayName, name),
    ...string(RUN.host, host),
    ...wrap(RUN.startTime, [
      ...integer(TIMESTAMP.seconds, seconds),
      ...whole(TIMESTAMP.nanos, Math.round((startTime - seconds * 1000) * 1e6)),
    ]),
  ];
}

/** A line of history. `runtime`: seconds since the run began. */
export function historyBody(line: LogLine, runtime: number): Pieces {
  const items = Object.entries(withTimes(line, runtime)).flatMap(([key, value]) =>
    wrap(HISTORY.item, item(key, value)),
  );
  return [...items, ...wrap(HISTORY.step, integer(STEP.num, line.step))];
}

/** The newest values, which W&B shows in its tables. */
export function summaryBody(line: LogLine, runtime: number): Pieces {
  return Object.entries(withTimes(line, runtime)).flatMap(([key, value]) => wrap(UPDATES.update, item(key, value)));
}

export function exitBody(code: number, runtime: number): Pieces {
  return [...whole(EXIT.exitCode, code), ...whole(EXIT.runtime, Math.round(runtime))];
}

/** A field that is left out when it is 0, as proto3 does. */
function whole(number: number, value: number): Pieces {
  return value === 0 ? [] : integer(number, value);
}

/** W&B's own three columns. */
function withTimes({ step, wallTime, values }: LogLine, runtime: number): Record<string, number> {
  return { ...values, _step: step, _timestamp: wallTime, _runtime: runtime };
}

/** What is not finite has no JSON; W&B's client writes it as text, and its charts know it. */
function item(key: string, value: unknown): Pieces {
  const isOdd = typeof value === "number" && !Number.isFinite(value);
  return [...string(ITEM.key, key), ...string(ITEM.valueJson, JSON.stringify(isOdd ? String(value) : (value ?? null)))];
}

/** Lines of history between two summaries, so that a run that was killed has one too. */
const LINES_A_SUMMARY = 50;

/** Earlier lines that are taken over at a time. */
const LINES_AT_ONCE = 1000;

/**
 * Opens `dir`/wandb/offline-run-<time>-<id>/run-<id>.wandb. A folder of an earlier part of the run
 * gives its id to the new one, which begins with the `earlier` lines: `wandb sync` writes a run
 * anew from its first line, so the newest folder must hold all of them. Rejects when it cannot be
 * made.
 */
export async function openWandb(
  dir: string,
  about: Pick<WandbRun, "project" | "name" | "config">,
  earlier: AsyncIterable<LogLine>,
  options: LogFileOptions,
): Promise<RunLog> {
  const root = join(dir, "wandb");
  await mkdir(root, { recursive: true });
  const startTime = Date.now();
  const began = performance.now();
  const before = await newestFolder(root);
  const id = before?.id ?? newId();
  const from = Math.max(startTime, (before?.time ?? 0) + 1000);
  const file = await LogFile.create(join(await newFolder(root, from, id), `run-${id}.wandb`), options);
  const frames = new RecordFrames();
  let num = 0;
  const add = (kind: keyof typeof RECORD, body: Pieces) => file.append(frames.frame(record(++num, kind, body)));
  file.append([frames.begin()]);
  add("header", headerBody(VERSION));
  add("run", runBody({ ...about, id, host: hostname(), startTime }));
  let last: LogLine | undefined;
  let lines = 0;
  const runtime = (line: LogLine) => line.values.elapsed_s ?? Math.max(0, line.wallTime - startTime / 1000);
  const append = (line: LogLine): void => {
    last = last === undefined ? line : { ...line, values: { ...last.values, ...line.values } };
    add("history", historyBody(line, runtime(line)));
    if (++lines % LINES_A_SUMMARY === 0) add("summary", summaryBody(last, runtime(last)));
  };
  try {
    for await (const line of earlier) {
      append(line);
      if (lines % LINES_AT_ONCE === 0) await file.drained();
    }
  } catch (thrown) {
    await file.close();
    throw thrown;
  }
  return {
    append,
    async close(exitCode) {
      if (last !== undefined) add("summary", summaryBody(last, runtime(last)));
      add("exit", exitBody(exitCode, (performance.now() - began) / 1000));
      add("final", []);
      add("footer", []);
      await file.close();
    },
  };
}

const FOLDER = /^offline-run-(\d{4})(\d\d)(\d\d)_(\d\d)(\d\d)(\d\d)-([a-z0-9]{8})$/;

/**
 * The id of an earlier part of the run, and the time in the name of its newest folder, in
 * milliseconds since 1970. A new folder is named after it even where the system's clock was set
 * back, so that the newest folder, which holds all lines, is the last one by name.
 */
async function newestFolder(root: string): Promise<{ readonly id: string; readonly time: number } | undefined> {
  const folders = (await readdir(root)).filter((name) => FOLDER.test(name)).toSorted();
  const [, year, month, day, hour, minute, second, id] = FOLDER.exec(folders.at(-1) ?? "") ?? [];
  if (id === undefined) return undefined;
  return { id, time: Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`) };
}

function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => (byte % 36).toString(36)).join("");
}

/** A folder named by the second; two in one second take turns. */
async function newFolder(root: string, startTime: number, id: string): Promise<string> {
  for (let time = startTime; ; time += 1000) {
    const digits = new Date(time)
      .toISOString()
      .replaceAll(/[-:]|\..*/g, "")
      .replace("T", "_");
    const folder = join(root, `offline-run-${digits}-${id}`);
    try {
      await mkdir(folder);
      await mkdir(join(folder, "files"));
      return folder;
    } catch (thrown) {
      if (!hasCode(thrown, "EEXIST")) throw thrown;
    }
  }
}
