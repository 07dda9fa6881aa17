/**
 * The features of runs for a page that asks a server: PREFIX/summary, PREFIX/latents?...,
 * PREFIX/latents/12, PREFIX/some?latents=12,99, PREFIX/documents/3, PREFIX/map; a POST to
 * PREFIX/labels changes the name or note of a latent. Of a file only a few chunks are read an
 * answer.
 */

import { stat } from "node:fs/promises";
import { join } from "node:path";
import { FEATURES, FEATURES_FILE, LABELS } from "../run-files/names.ts";
import { UsageError } from "../util/errors.ts";
import { Fields, type Json } from "../util/json.ts";
import { checkChange, LabelsNow } from "./labels-file.ts";
import { type FeatureFile, openFeatures } from "./open.ts";
import { FeatureReader } from "./shared/reader.ts";
import { type LatentQuery, SORTS } from "./shared/source.ts";

/** The features file of a run. */
export function featuresFile(runDir: string): string {
  return join(runDir, FEATURES, FEATURES_FILE);
}

/** Answers what a page asks about the features of runs. */
export interface ExplorerApi extends AsyncDisposable {
  /**
   * What to send as JSON for an address, given as its parts after the prefix of the run:
   * ["summary"], ["latents"] with a query, ["latents", "12"], or ["some"] with the numbers of
   * latents; undefined: there is no such thing, or the run in `folder` has no features ("some" then
   * has no rows). Rejects with SaettaError where its file is damaged.
   */
  answer(folder: string, parts: readonly string[], query: URLSearchParams): Promise<unknown>;
  /**
   * Does what a POST asks: to ["labels"] with { latent, name?, note? } changes a label, and
   * resolves to it. Rejects with UsageError or FormatError where the body is something else.
   */
  post(folder: string, parts: readonly string[], body: Json): Promise<unknown>;
}

/** Rows of one answer. */
const MOST_ROWS = 500;
/** Files that are open at a time. */
const MOST_OPEN = 8;

interface Opened {
  readonly file: FeatureFile;
  readonly reader: FeatureReader;
  readonly labels: LabelsNow;
  /** Tells one version of the file from the next. */
  readonly version: string;
}

export function explorerApi(): ExplorerApi {
  /** What was used last stands last. */
  const opened = new Map<string, Opened>();
  let turn: Promise<unknown> = Promise.resolve();

  const close = async (path: string): Promise<void> => {
    const held = opened.get(path);
    opened.delete(path);
    await held?.file.close();
  };

  /** The file as it is now: a report may have been made anew. */
  const open = async (folder: string): Promise<Opened | undefined> => {
    const path = featuresFile(folder);
    const found = await stat(path).catch(() => undefined);
    const version = found && `${found.ino} ${found.size} ${found.mtimeMs}`;
    const held = opened.get(path);
    if (held !== undefined && held.version === version) {
      opened.delete(path);
      opened.set(path, held);
      return held;
    }
    await close(path);
    if (version === undefined) return undefined;
    const file = await openFeatures(path);
    const labels = new LabelsNow(join(folder, LABELS));
    const reader = new FeatureReader(file.index.summary, file.read, path, async () => (await labels.read()).of);
    const next = { file, reader, labels, version };
    opened.set(path, next);
    if (opened.size > MOST_OPEN) await close(opened.keys().next().value!);
    return next;
  };

  const answer = async (
    folder: string,
    [kind, number, ...more]: readonly string[],
    query: URLSearchParams,
  ): Promise<unknown> => {
    const isNumber = /^\d{1,9}$/.test(number ?? "");
    const isKnown =
      (kind === "latents" && (isNumber || number === undefined)) ||
      (kind === "documents" && isNumber) ||
      (["summary", "map", "some"].includes(kind ?? "") && number === undefined);
    if (!isKnown || more.length > 0) return undefined;
    const reader = (await open(folder))?.reader;
    if (kind === "some")
      return { hasFeatures: reader !== undefined, rows: (await reader?.some(numbersOf(query))) ?? [] };
    if (reader === undefined || kind === "summary") return reader?.summary();
    if (kind === "map") return reader.map();
    if (number === undefined) return reader.latents(queryOf(query));
    const found = kind === "latents" ? reader.latent(Number(number)) : reader.document(Number(number));
    return found.catch((thrown: unknown) => {
      if (thrown instanceof UsageError) return undefined;
      throw thrown;
    });
  };

  const post = async (folder: string, parts: readonly string[], body: Json): Promise<unknown> => {
    if (parts.length !== 1 || parts[0] !== "labels") return undefined;
    const held = await open(folder);
    if (held === undefined) return undefined;
    const fields = new Fields(body, "the body", "");
    const text = (name: string) => (fields.get(name) === undefined ? undefined : fields.string(name));
    const { latents } = held.file.index.summary;
    const change = checkChange(fields.get("latent"), { name: text("name"), note: text("note") }, latents);
    return held.labels.change(change, Date.now());
  };

  /** One after the other: no file is closed while it is read. */
  const inTurn = (work: () => Promise<unknown>): Promise<unknown> => {
    const result = turn.then(work);
    turn = result.catch(() => undefined);
    return result;
  };

  return {
    answer: (folder, parts, query) => inTurn(() => answer(folder, parts, query)),
    post: (folder, parts, body) => inTurn(() => post(folder, parts, body)),
    async [Symbol.asyncDispose]() {
      await turn;
      for (const path of [...opened.keys()]) await close(path);
    },
  };
}

/** The latents of "latents=12,99": those of them that are numbers, and not too many. */
function numbersOf(query: URLSearchParams): number[] {
  const words = (query.get("latents") ?? "").split(",", MOST_ROWS);
  return words.filter((word) => /^\d{1,9}$/.test(word)).map(Number);
}

function queryOf(query: URLSearchParams): LatentQuery {
  const whole = (name: string, most: number) =>
    Math.min(most, /^\d{1,9}$/.test(query.get(name) ?? "") ? Number(query.get(name)) : 0);
  const search = query.get("search") ?? "";
  return {
    search,
    named: query.get("named") === "1",
    sort: SORTS.find((sort) => sort === query.get("sort")) ?? "match",
    descending: query.get("order") !== "up",
    offset: whole("offset", Number.MAX_SAFE_INTEGER),
    count: whole("count", MOST_ROWS),
  };
}
