/** Rows from standard input or a Unix socket, for `train` and `resume`. */

import { stat } from "node:fs/promises";
import { connect } from "node:net";
import { type TrainOptions, withDefaults } from "../config.ts";
import type { RowKeeper } from "../data/row-keeper.ts";
import type { Source } from "../data/source.ts";
import { messageOf, SaettaError, UsageError } from "../util/errors.ts";

export interface RowInput {
  readonly source: Source;
  /** Throws what ended the rows in the middle, once the run is over and saved. */
  check(): void;
}

/** Whether the data is no file: "-", or a socket. */
export async function isRowStream(data: readonly string[] | undefined): Promise<boolean> {
  const [path, ...more] = data ?? [];
  if (path === undefined) return false;
  const streams = path === "-" || (await isSocket(path));
  if (streams && more.length > 0)
    throw new UsageError("rows that come as a stream are the only data of a run", { where: path, mend: "name one" });
  return streams;
}

/** `from`: rows that the continued run has taken already. `keep`: gets all that is read. */
export async function openRowInput(
  path: string,
  asked: TrainOptions,
  { keep, from = 0 }: { readonly keep?: RowKeeper | undefined; readonly from?: number } = {},
): Promise<RowInput> {
  if (asked.target !== undefined)
    throw new UsageError("--target needs files: rows of a stream have no targets", { mend: "leave it out" });
  if (asked.epochs !== undefined && asked.epochs !== 1)
    throw new UsageError("--epochs needs files: the rows of a stream are read once", { mend: "give --tokens" });
  const { openRowStream } = await import("../data/stream-source.ts");
  const { tokens, holdout, excludeTokens, excludePositions, seed, buffer, shuffle } = withDefaults(asked);
  const where = path === "-" ? "standard input" : path;
  const chunks = path === "-" ? standardInput() : await connected(path);
  let failure: SaettaError | undefined;
  const source = await openRowStream(chunks, where, {
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

function standardInput(): AsyncIterable<Uint8Array> {
  if (process.stdin.isTTY)
    throw new UsageError("standard input is a terminal", {
      mend: "pipe rows into it: python rows.py | saetta train -",
    });
  return process.stdin;
}

async function isSocket(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isSocket(),
    () => false,
  );
}

function connected(path: string): Promise<AsyncIterable<Uint8Array>> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once("connect", () => resolve(socket));
    socket.once("error", (cause) => {
      reject(
        new SaettaError(`cannot be connected to (${messageOf(cause)})`, {
          where: path,
          mend: "start the program that listens there",
          cause,
        }),
      );
    });
  });
}
