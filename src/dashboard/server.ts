/** The page over HTTP: assets from memory, runs by their ids, and never a path from an address. */

import { randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, isIP } from "node:net";
import { hostname } from "node:os";
import { basename } from "node:path";
import type { AskOffer } from "../explorer/shared/ask.ts";
import { FormatError, hasCode, SaettaError, UsageError } from "../util/errors.ts";
import { type Json, parseJson } from "../util/json.ts";
import { type AskApi, answerAbout, answerQuestion } from "./ask.ts";
import { type Assets, INDEX, loadAssets } from "./assets.ts";
import { limitConnections } from "./connections.ts";
import { refusalOf, SECURITY_HEADERS } from "./guard.ts";
import { fail, send, sendJson } from "./respond.ts";
import { Runs } from "./runs.ts";
import { EventStream } from "./stream.ts";
import { Watch, type WatchTimes } from "./watch.ts";

export const DEFAULT_PORT = 7232;
/** Ports tried when nobody asked for one. */
const PORTS = 20;
/** Open pages at most, and runs that one shows. */
const MOST_STREAMS = 64;
const MOST_SHOWN = 16;

/**
 * Answers what is asked of the features of a run: the parts of the address after /api/features/ID,
 * decoded, and the query. Resolves to what is sent as JSON, or to undefined where there is no such
 * thing.
 */
export type FeaturesApi = (folder: string, parts: readonly string[], query: URLSearchParams) => Promise<unknown>;

/**
 * Does what a POST to /api/features/ID/... asks: the parts of the address as in FeaturesApi, and
 * the body's JSON. Resolves to the answer, or to undefined where there is no such thing. Rejects
 * with UsageError where the body is not what it must be; its message is the answer.
 */
export type PostApi = (folder: string, parts: readonly string[], body: Json) => Promise<unknown>;

export interface DashboardOptions {
  /** Run folders, or folders of them. */
  readonly folders: readonly string[];
  /** Default: 7232, or the next that is free. 0: any. */
  readonly port?: number | undefined;
  /** Address to listen at. Default: 127.0.0.1, which only this machine reaches. */
  readonly host?: string | undefined;
  /** Default: there are none. */
  readonly features?: FeaturesApi | undefined;
  /** Default: no POST is answered. */
  readonly posts?: PostApi | undefined;
  /** Answers questions about texts. Default: nothing does. */
  readonly ask?: AskApi | undefined;
  /** Paths of autoencoders that are of no run, to ask about. */
  readonly autoencoders?: readonly string[] | undefined;
  readonly times?: Partial<WatchTimes> | undefined;
  /** A clock in milliseconds, by which a run becomes quiet. Default: that of the process. */
  readonly now?: (() => number) | undefined;
  /**
   * Milliseconds that a client may take to send its request, and that an unused connection stays
   * open. Default: 5000.
   */
  readonly patience?: number | undefined;
  /** Where the built page is. */
  readonly assets?: string | undefined;
}

export interface Dashboard {
  readonly url: string;
  readonly port: number;
  close(): Promise<void>;
}

/**
 * Serves the page until it is closed. Throws UsageError or SaettaError when a folder is not there,
 * the page is not built or the port is taken.
 */
export async function serveDashboard(options: DashboardOptions): Promise<Dashboard> {
  const { host = "127.0.0.1", patience = 5000 } = options;
  const assets = await loadAssets(options.assets);
  const watch = new Watch(await Runs.open(options.folders, options.now), options.times);
  const names = [hostname().toLowerCase(), ...(isIP(host) === 0 ? [host.toLowerCase()] : [])];
  const { features, posts, ask } = options;
  const token = posts === undefined && ask === undefined ? undefined : randomBytes(32).toString("base64url");
  const others = othersOf(watch.runs, options.autoencoders ?? []);
  const site: Site = { assets, watch, names, features, posts, ask, others, token };
  const server = createServer({
    maxHeaderSize: 8192,
    headersTimeout: patience,
    requestTimeout: patience,
    keepAliveTimeout: patience,
  });
  server.on("request", (request, response) => {
    answer(site, request, response).catch(() => fail(response, 500, "something went wrong here"));
  });
  server.on("clientError", (_, socket) => {
    if (socket.writable) socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    else socket.destroy();
  });
  limitConnections(server);
  await listen(server, host, options.port);
  const { port } = server.address() as AddressInfo;
  const shown = host === "0.0.0.0" || host === "::" ? hostname() : host.includes(":") ? `[${host}]` : host;
  return {
    url: `http://${shown}:${port}/`,
    port,
    close: () =>
      new Promise((resolve) => {
        watch.close();
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function listen(server: Server, host: string, asked: number | undefined): Promise<void> {
  const first = asked ?? DEFAULT_PORT;
  for (let port = first; ; port++) {
    try {
      await new Promise<void>((resolve, reject) => {
        server.once("error", reject);
        server.listen({ host, port }, () => {
          server.off("error", reject);
          resolve();
        });
      });
      return;
    } catch (cause) {
      if (asked === undefined && hasCode(cause, "EADDRINUSE") && port < first + PORTS) continue;
      if (hasCode(cause, "EADDRINUSE"))
        throw new SaettaError("the port is taken", { where: `${host}:${port}`, mend: "choose another --port", cause });
      if (hasCode(cause, "EACCES"))
        throw new SaettaError("the port may not be used", {
          where: `${host}:${port}`,
          mend: "choose one above 1023",
          cause,
        });
      if (hasCode(cause, "EADDRNOTAVAIL", "ENOTFOUND", "EAI_AGAIN")) {
        throw new SaettaError("is no address of this machine", {
          where: host,
          mend: "--host 0.0.0.0 listens at all of them",
          cause,
        });
      }
      throw cause;
    }
  }
}

interface Site {
  readonly assets: Assets;
  readonly watch: Watch;
  readonly names: readonly string[];
  readonly features: FeaturesApi | undefined;
  readonly posts: PostApi | undefined;
  readonly ask: AskApi | undefined;
  /** Paths of autoencoders by their ids, which no run has. */
  readonly others: ReadonlyMap<string, string>;
  /** What a POST must state; a page gets it from /api/token. */
  readonly token: string | undefined;
}

async function answer(site: Site, request: IncomingMessage, response: ServerResponse): Promise<void> {
  for (const [name, value] of Object.entries(SECURITY_HEADERS)) response.setHeader(name, value);
  const refusal = refusalOf(request, site.names, site.token);
  if (refusal !== undefined) {
    response.setHeader("Connection", "close"); // a body may follow that nobody reads
    if (refusal.status === 405) response.setHeader("Allow", `GET, HEAD${site.token ? ", POST" : ""}`);
    fail(response, refusal.status, refusal.text);
    return;
  }
  const [path = "", search = ""] = splitOnce(request.url ?? "", "?");
  if (request.method === "POST") {
    await answerPost(site, partsOf(path), request, response);
    return;
  }
  const asset = site.assets.get(path === "/" ? INDEX : path);
  if (asset !== undefined) {
    send(response, asset.type, asset.bytes, path.startsWith("/assets/"));
    return;
  }
  const parts = partsOf(path);
  const query = new URLSearchParams(search);
  const isPage = parts?.length === 2 && (parts[0] === "features" || parts[0] === "ask");
  if (isPage && folderOf(site, parts[1]!) !== undefined) {
    const index = site.assets.get(INDEX)!;
    send(response, index.type, index.bytes);
  } else if (parts?.[0] === "api") await answerApi(site, parts.slice(1), query, request, response);
  else fail(response, 404, "there is nothing here");
}

/** The body's JSON. Rejects with FormatError when it is none. */
async function bodyOf(request: IncomingMessage): Promise<Json> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer); // no longer than its header states
  return parseJson(Buffer.concat(parts), "the body");
}

async function answerPost(
  site: Site,
  [api, kind, id = "", ...rest]: readonly string[] = [],
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  try {
    const body = await bodyOf(request);
    const folder = api === "api" ? folderOf(site, id) : undefined;
    if (kind === "ask" && folder !== undefined) return await answerQuestion(site.ask, folder, rest, body, response);
    const found = kind === "features" && folder ? await site.posts?.(folder, rest, body) : undefined;
    if (found === undefined) fail(response, 404, "there is nothing here");
    else sendJson(response, found);
  } catch (thrown) {
    if (!(thrown instanceof UsageError || thrown instanceof FormatError)) throw thrown;
    fail(response, 400, thrown.message);
  }
}

async function answerApi(
  site: Site,
  [kind, id, ...rest]: readonly string[],
  query: URLSearchParams,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { watch, features, ask, others, token } = site;
  const run = id === undefined ? undefined : watch.runs.get(id);
  const folder = folderOf(site, id);
  const points = Math.round(numberOf(query, "points", 400, 20, 2000));
  const scale = query.get("scale") === "log" ? "log" : "linear";
  if (kind === "events" && id === undefined) {
    if (watch.watchers >= MOST_STREAMS) {
      response.setHeader("Retry-After", "10");
      fail(response, 503, `${MOST_STREAMS} pages are open already`);
    } else if (request.method === "HEAD") {
      send(response, "text/event-stream; charset=utf-8", Buffer.alloc(0));
    } else {
      const shown = [...new Set(query.getAll("run"))].slice(0, MOST_SHOWN);
      const leave = watch.add(new EventStream(response, watch, { shown, points, scale }));
      response.on("close", leave);
    }
  } else if (kind === "runs" && run !== undefined && rest.length === 1 && rest[0] === "series") {
    await run.update();
    const range = run.columns.range(
      numberOf(query, "from", Number.NEGATIVE_INFINITY),
      numberOf(query, "to", Number.POSITIVE_INFINITY),
    );
    sendJson(response, run.columns.pieces(run.id, points, scale, ...range));
  } else if (kind === "ask" && id === undefined)
    sendJson(response, { model: ask?.model ?? null, others: [...others.keys()] } satisfies AskOffer);
  else if (kind === "ask" && folder !== undefined && rest.length === 0) await answerAbout(ask, folder, response);
  else if (kind === "features" && folder !== undefined) {
    const found = await features?.(folder, rest, query);
    if (found === undefined) fail(response, 404, "there is nothing here");
    else sendJson(response, found);
  } else if (kind === "token" && id === undefined && token !== undefined) sendJson(response, { token });
  else fail(response, 404, "there is nothing here");
}

/** Where a run or autoencoder is: by looking it up. */
function folderOf({ watch, others }: Site, id = ""): string | undefined {
  return watch.runs.get(id)?.folder ?? others.get(id);
}

/** An id for each path, which no run has. */
function othersOf(runs: Runs, paths: readonly string[]): Map<string, string> {
  const others = new Map<string, string>();
  for (const path of paths) {
    const plain = basename(path).replaceAll(/[^A-Za-z0-9._-]+/g, "~") || "autoencoder";
    let id = plain;
    for (let i = 2; runs.get(id) !== undefined || others.has(id); i++) id = `${plain}~${i}`;
    others.set(id, path);
  }
  return others;
}

/** The decoded parts of an address; undefined when it cannot be decoded or has empty ones. */
function partsOf(path: string): readonly string[] | undefined {
  try {
    const parts = path.slice(1).split("/").map(decodeURIComponent);
    return parts.every((part) => part !== "") ? parts : undefined;
  } catch {
    return undefined;
  }
}

function numberOf(
  query: URLSearchParams,
  name: string,
  byDefault: number,
  least = Number.NEGATIVE_INFINITY,
  most = Number.POSITIVE_INFINITY,
): number {
  const text = query.get(name);
  const value = text === null || text === "" ? Number.NaN : Number(text);
  return Number.isFinite(value) ? Math.min(most, Math.max(least, value)) : byDefault;
}

function splitOnce(text: string, by: string): readonly [string, string] {
  const at = text.indexOf(by);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}
