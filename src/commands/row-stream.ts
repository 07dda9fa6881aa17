/** Rows from standard input, a Unix socket or a folder that fills, for `train` and `resume`. */

import { fstatSync } from "node:fs";
import { stat } from "node:fs/promises";
import { isatty } from "node:tty";
import type { Command } from "commander";
import { freeBytes } from "../checkpoint/storage.ts";
import { type TrainOptions, withDefaults } from "../config.ts";
import type { RowFrames } from "../data/row-frames.ts";
import type { RowKeeper } from "../data/row-keeper.ts";
import type { Source } from "../data/source.ts";
import { messageOf, SaettaError, UsageError } from "../util/errors.ts";
import { parseCount } from "../util/numbers.ts";
import { type ByteReader, SocketBytes } from "../util/socket-bytes.ts";
import { note } from "./note.ts";

export interface RowInput {
  readonly source: Source;
  /** Throws what ended the rows in the middle, once the run is over and saved. */
  check(): void;
}

export interface WatchFlags {
  readonly watch?: string;
  readonly consume?: boolean;
  /** Seconds. */
  readonly watchTimeout?: number;
}

/** Where rows are read once: "-", a socket, or a folder that fills. */
export type Stream = { readonly path: string } | (WatchFlags & { readonly watch: string });

const TIMEOUT_S = 600;

export function addWatchFlags(command: Command): Command {
  return command
    .option("--watch <dir>", "train on the files that a program writes into this folder, as they become whole")
    .option("--consume", "delete each file of --watch once its rows are taken")
    .option(
      "--watch-timeout <s>",
      `seconds that a file of --watch may take to become whole, and without a new one (default: ${TIMEOUT_S})`,
      (text) => parseCount(text, "--watch-timeout"),
    );
}

/** The stream that data and flags name; undefined where the data is files, or nothing. */
export async function streamOf(data: readonly string[] | undefined, flags: WatchFlags): Promise<Stream | undefined> {
  const { watch, consume, watchTimeout } = flags;
  const [path, ...more] = data ?? [];
  if (watch !== undefined) {
    if (path !== undefined) throw new UsageError("--watch and other data exclude each other", { mend: "name one" });
    return { ...flags, watch };
  }
  for (const [flag, value] of Object.entries({ "--consume": consume, "--watch-timeout": watchTimeout }))
    if (value !== undefined) throw new UsageError(`${flag} needs --watch`, { mend: "name a folder with --watch" });
  if (path === undefined) return undefined;
  const streams = path === "-" || (await isSocket(path));
  if (streams && more.length > 0)
    throw new UsageError("rows that come as a stream are the only data of a run", { where: path, mend: "name one" });
  return streams ? { path } : undefined;
}

/** `from`: rows that the continued run has taken already. `keep`: gets all that is read. */
export async function openRowInput(
  stream: Stream,
  asked: TrainOptions,
  { keep, from = 0 }: { readonly keep?: RowKeeper | undefined; readonly from?: number } = {},
): Promise<RowInput> {
  if (asked.target !== undefined)
    throw new UsageError("--target needs files: rows of a stream have no targets", { mend: "leave it out" });
  if (asked.epochs !== undefined && asked.epochs !== 1)
    throw new UsageError("--epochs needs files: the rows of a stream are read once", { mend: "give --tokens" });
  const { openFrames } = await import("../data/stream-source.ts");
  const { tokens, holdout, excludeTokens, excludePositions, seed, buffer, shuffle } = withDefaults(asked);
  let failure: SaettaError | undefined;
  const source = await openFrames(await framesOf(stream, asked), {
    ...{ tokens, holdout, excludeTokens, excludePositions, seed, buffer, shuffle, from, keep },
    onFailure: (error) => {
      failure = error;
    },
  });
  return {
    source,
    check: () => {
      if (failure !== undefined) throw failure;
    },
  };
}

async function framesOf(stream: Stream, { tokens, dataset, as, layer }: TrainOptions): Promise<RowFrames> {
  if ("watch" in stream) {
    if (tokens === undefined)
      throw new UsageError("--watch needs --tokens: nothing else says how many rows to train on", {
        mend: "give --tokens, such as 10M",
      });
    const { watch, consume = false, watchTimeout = TIMEOUT_S } = stream;
    const { FolderFrames } = await import("../data/folder-frames.ts");
    const options = { dataset, as, layer, consume, timeout: 1000 * watchTimeout, onNote: note, free: freeBytes };
    return new FolderFrames(watch, options);
  }
  const { FrameReader } = await import("../data/row-frames.ts");
  const { path } = stream;
  return path === "-"
    ? new FrameReader(standardInput(), "standard input")
    : new FrameReader(await connected(path), path);
}

function standardInput(): AsyncIterable<Uint8Array> | ByteReader {
  if (isatty(0))
    throw new UsageError("standard input is a terminal", {
      mend: "pipe rows into it: python rows.py | saetta train -",
    });
  const about = fstatSync(0);
  return about.isFIFO() || about.isSocket() ? SocketBytes.of(0) : process.stdin;
}

async function isSocket(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isSocket(),
    () => false,
  );
}

function connected(path: string): Promise<ByteReader> {
  return SocketBytes.connect(path).catch((cause: unknown) => {
    throw new SaettaError(`cannot be connected to (${messageOf(cause)})`, {
      where: path,
      mend: "start the program that listens there",
      cause,
    });
  });
}
