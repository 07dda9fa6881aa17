/** The features of a run for a page that asks a server: GET prefix/summary, prefix/latents?..., prefix/latents/12. Only a few chunks of the file are read an answer. */

import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { messageOf, SaettaError, UsageError } from "../util/errors.ts";
import { type FeatureFile, openFeatures } from "./open.ts";
import { FeatureReader } from "./reader.ts";
import { SORTS } from "./source.ts";

/** Where `saetta report` leaves the features of a run; `explorerApi` is given that folder. */
export const FEATURES = "features";
const FILE = "features.saetta";

/** The folder for the features of the run that a checkpoint folder belongs to; undefined where it belongs to none. */
export function featuresFolder(checkpoint: string): string | undefined {
  const folder = dirname(checkpoint);
  return basename(folder) === "checkpoints" ? join(dirname(folder), FEATURES) : undefined;
}

export function featuresFile(folder: string): string {
  return join(folder, FILE);
}

export interface ApiAnswer {
  readonly status: 200 | 400 | 404 | 500;
  readonly type: "application/json";
  readonly body: string;
}

export interface ExplorerApi extends AsyncDisposable {
  /** `path`: what follows the prefix, such as "latents/12". Never rejects: what went wrong is in the answer, as {"error"}. */
  answer(path: string, query: URLSearchParams): Promise<ApiAnswer>;
}

/** Rows of one answer. */
const MOST_ROWS = 500;

interface Opened {
  readonly file: FeatureFile;
  readonly reader: FeatureReader;
  /** Tells one version of the file from the next. */
  readonly version: string;
}

export function explorerApi(folder: string): ExplorerApi {
  const path = featuresFile(folder);
  let opened: Opened | undefined;
  let turn: Promise<unknown> = Promise.resolve();

  /** The file as it is now: a report may have been made anew. */
  const open = async (): Promise<FeatureReader> => {
    const found = await stat(path).catch(() => undefined);
    if (found === undefined)
      throw new SaettaError("there are no features of this run", { mend: "make them: saetta report RUN --data ACTS" });
    const version = `${found.ino} ${found.size} ${found.mtimeMs}`;
    if (opened?.version === version) return opened.reader;
    await opened?.file.close();
    opened = undefined;
    const file = await openFeatures(path);
    opened = { file, reader: new FeatureReader(file.index.summary, file.read, path), version };
    return opened.reader;
  };

  const answer = async (asked: string, query: URLSearchParams): Promise<ApiAnswer> => {
    const route = /^(summary|latents)(?:\/(\d{1,9}))?$/.exec(asked);
    if (route === null || (route[1] === "summary" && route[2] !== undefined)) return failed(404, "there is nothing here");
    try {
      const reader = await open();
      if (route[1] === "summary") return good(await reader.summary());
      if (route[2] !== undefined) return good(await reader.latent(Number(route[2])));
      const whole = (name: string, most: number) => Math.min(most, /^\d{1,9}$/.test(query.get(name) ?? "") ? Number(query.get(name)) : 0);
      return good(
        await reader.latents({
          search: query.get("search") ?? "",
          sort: SORTS.find((sort) => sort === query.get("sort")) ?? "score",
          descending: query.get("order") !== "up",
          offset: whole("offset", Number.MAX_SAFE_INTEGER),
          count: whole("count", MOST_ROWS),
        }),
      );
    } catch (thrown) {
      if (thrown instanceof UsageError) return failed(404, thrown.message);
      return failed(opened === undefined && thrown instanceof SaettaError && thrown.where === undefined ? 404 : 500, messageOf(thrown));
    }
  };

  return {
    answer(asked, query) {
      // One after the other: a file that is read is not closed under the reader.
      const result = turn.then(() => answer(asked, query));
      turn = result;
      return result;
    },
    async [Symbol.asyncDispose]() {
      await turn;
      await opened?.file.close();
      opened = undefined;
    },
  };
}

function good(value: unknown): ApiAnswer {
  return { status: 200, type: "application/json", body: JSON.stringify(value) };
}

function failed(status: ApiAnswer["status"], error: string): ApiAnswer {
  return { status, type: "application/json", body: JSON.stringify({ error }) };
}
