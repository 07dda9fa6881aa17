/**
 * A Hugging Face Hub on this machine, written from its public protocol: listings in pages,
 * `resolve` with ETags and redirects to another host for large files, ranges, gated and private
 * repos, uploads through the commit API. Tests make it fail.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import {
  COMMIT,
  type FakeFile,
  type FakeRepo,
  gitSha1,
  type HubServer,
  refuse,
  type Seen,
  sendJson,
  sha256,
  TOKEN,
  textOf,
} from "./hub-parts.ts";
import { answerUpload } from "./hub-uploads.ts";

export * from "./hub-parts.ts";

/** A repo with one commit, which "main" is. Files over 1 kB are large. */
export function repoOf(
  name: string,
  files: Readonly<Record<string, Uint8Array | string>>,
  more: Partial<FakeRepo> = {},
): FakeRepo {
  const entries = Object.entries(files).map(([path, content]): [string, FakeFile] => {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    return [path, { bytes, lfs: bytes.length > 1000 }];
  });
  return { name, commits: new Map([[COMMIT, new Map(entries)]]), refs: new Map([["main", COMMIT]]), ...more };
}

export async function startHub(...repos: readonly FakeRepo[]): Promise<HubServer> {
  const listening = async (server: Server, name: string): Promise<string> => {
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `http://${name}:${(server.address() as AddressInfo).port}`;
  };
  const handler = (host: Seen["host"], answer: (request: IncomingMessage, response: ServerResponse) => unknown) =>
    createServer((request, response) => {
      const { method = "", url = "", headers } = request;
      const seen = { host, method, url, authorization: headers.authorization, range: headers.range };
      hub.seen.push(seen);
      if (hub.faults.some((fault) => fault(seen, response, request) === true)) return;
      Promise.resolve(answer(request, response)).catch((thrown: unknown) => {
        response.writeHead(500);
        response.end(String(thrown));
      });
    });
  const main = handler("hub", (request, response) => answerHub(hub, request, response));
  const other = handler("storage", (request, response) => answerStorage(hub, request, response));
  const hub: HubServer = {
    ...{ endpoint: await listening(main, "127.0.0.1"), storage: await listening(other, "localhost") },
    ...{ repos: new Map(repos.map((repo) => [repo.name, repo])), blobs: new Map(), seen: [], faults: [] },
    ...{ pageSize: 1000, resolveCache: true },
    async close() {
      for (const server of [main, other]) {
        server.closeAllConnections();
        await new Promise((resolve) => server.close(resolve));
      }
    },
    [Symbol.asyncDispose]: () => hub.close(),
  };
  return hub;
}

async function answerHub(hub: HubServer, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", hub.endpoint);
  const parts = url.pathname.split("/").slice(1).map(decodeURIComponent);
  const { authorization } = request.headers;
  if (authorization !== undefined && authorization !== `Bearer ${TOKEN}`)
    return refuse(response, 401, undefined, "Invalid credentials in Authorization header");
  if (await answerUpload(hub, request, response, url)) return;
  const isApi = parts[0] === "api";
  const dataset = (isApi ? parts[1] : parts[0]) === "datasets";
  const rest = parts.slice(isApi ? 2 : dataset ? 1 : 0);
  if (isApi && parts[1] === "resolve-cache") return answerCached(hub, parts.slice(2), request, response);
  const name = `${dataset ? "datasets/" : ""}${rest[0]}/${rest[1]}`;
  const repo = hub.repos.get(name);
  const known = authorization !== undefined;
  if (repo === undefined || (repo.private === true && !known))
    return refuse(response, known ? 404 : 401, "RepoNotFound", "Repository not found");
  const [, , what, revision = "", ...path] = rest;
  const commit = repo.refs.get(revision) ?? revision;
  const files = repo.commits.get(commit);
  if (files === undefined) return refuse(response, 404, "RevisionNotFound", `Invalid rev id: ${revision}`);
  // What is in a gated repo may be seen by all; its files not.
  if (repo.gated === true && !known && what === "resolve")
    return refuse(response, 401, "GatedRepo", `Access to model ${name} is restricted. You must be authenticated.`);
  if (what === "revision") return sendJson(response, { id: name, sha: commit });
  if (what === "tree") return list(hub, files, path.join("/"), url, response);
  if (what === "paths-info") {
    const { paths } = JSON.parse(await textOf(request)) as { readonly paths: readonly string[] };
    return sendJson(
      response,
      paths.flatMap((each) => entriesOf(files, "", true).filter((entry) => entry.path === each)),
    );
  }
  if (what === "resolve") return resolve(hub, { name, commit, files, path: path.join("/") }, request, response);
  refuse(response, 404, undefined, "Not Found");
}

interface Entry {
  readonly type: "file" | "directory";
  readonly path: string;
}

/** As `tree` lists them: folders and files in the order of their names. */
function entriesOf(files: ReadonlyMap<string, FakeFile>, below: string, recursive: boolean): Entry[] {
  const prefix = below === "" ? "" : `${below}/`;
  const entries = new Map<string, Entry>();
  for (const [path, file] of files) {
    if (!path.startsWith(prefix)) continue;
    const parts = path.slice(prefix.length).split("/");
    for (let depth = 1; depth < parts.length && (recursive || depth === 1); depth++) {
      const folder = prefix + parts.slice(0, depth).join("/");
      entries.set(folder, { type: "directory", path: folder });
    }
    if (parts.length > 1 && !recursive) continue;
    const { bytes, lfs } = file;
    const linked = { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 132 } };
    entries.set(path, {
      ...{ type: "file", path, size: bytes.length, oid: gitSha1(bytes) },
      ...(lfs === true ? linked : {}),
    } as Entry);
  }
  return [...entries.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

async function list(
  hub: HubServer,
  files: ReadonlyMap<string, FakeFile>,
  path: string,
  url: URL,
  response: ServerResponse,
): Promise<void> {
  const entries = entriesOf(files, path, url.searchParams.get("recursive") === "true");
  if (entries.length === 0) return refuse(response, 404, "EntryNotFound", `${path} does not exist`);
  const from = Number(url.searchParams.get("cursor") ?? 0);
  const next = new URL(url);
  next.searchParams.set("cursor", String(from + hub.pageSize));
  const more = from + hub.pageSize < entries.length;
  sendJson(
    response,
    entries.slice(from, from + hub.pageSize),
    more ? { link: `<${next.href}>; rel="next"` } : undefined,
  );
}

interface Resolved {
  readonly name: string;
  readonly commit: string;
  readonly files: ReadonlyMap<string, FakeFile>;
  readonly path: string;
}

async function resolve(
  hub: HubServer,
  { name, commit, files, path }: Resolved,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const file = files.get(path);
  if (file === undefined) {
    response.setHeader("x-repo-commit", commit);
    return refuse(response, 404, "EntryNotFound", "Entry not found");
  }
  const { bytes, lfs } = file;
  const about = { "x-repo-commit": commit, "x-linked-size": String(bytes.length) };
  if (lfs === true) {
    const etag = sha256(bytes);
    hub.blobs.set(etag, bytes);
    response.writeHead(302, {
      ...about,
      "x-linked-etag": `"${etag}"`,
      location: `${hub.storage}/blob/${etag}?signed=1`,
    });
    response.end();
  } else if (hub.resolveCache) {
    const location = `/api/resolve-cache/${[name, commit, path].map(encodeURIComponent).join("/")}`;
    response.writeHead(307, { ...about, location });
    response.end();
  } else sendBytes(bytes, { ...about, etag: `"${gitSha1(bytes)}"` }, request, response);
}

function answerCached(
  hub: HubServer,
  [name = "", commit = "", path = ""]: readonly string[],
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const { bytes } = hub.repos.get(name)!.commits.get(commit)!.get(path)!;
  sendBytes(bytes, { "x-repo-commit": commit, etag: `W/"${gitSha1(bytes)}"` }, request, response);
}

async function answerStorage(hub: HubServer, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", hub.storage);
  const bytes = hub.blobs.get(url.pathname.split("/").at(-1) ?? "");
  if (request.method === "PUT") {
    await answerUpload(hub, request, response, url);
    return;
  }
  if (bytes === undefined || url.searchParams.get("signed") !== "1") {
    response.writeHead(403);
    response.end("<Error>no signature</Error>");
    return;
  }
  sendBytes(bytes, { etag: '"of-the-storage"' }, request, response);
}

/** The bytes, or those of the range that is asked for. */
function sendBytes(
  bytes: Uint8Array,
  headers: Record<string, string>,
  { method, headers: { range } }: IncomingMessage,
  response: ServerResponse,
): void {
  const [, from, to] = /^bytes=(\d*)-(\d*)$/.exec(range ?? "") ?? [];
  let body = bytes;
  let status = 200;
  const more: Record<string, string> = {};
  if (from !== undefined && to !== undefined) {
    const first = from === "" ? Math.max(0, bytes.length - Number(to)) : Number(from);
    const end = from === "" || to === "" ? bytes.length : Math.min(bytes.length, Number(to) + 1);
    if (first >= bytes.length) {
      response.writeHead(416, { "content-range": `bytes */${bytes.length}` });
      response.end();
      return;
    }
    [body, status] = [bytes.subarray(first, end), 206];
    more["content-range"] = `bytes ${first}-${end - 1}/${bytes.length}`;
  }
  response.writeHead(status, {
    ...{ "accept-ranges": "bytes", "content-length": String(body.length) },
    ...headers,
    ...more,
  });
  response.end(method === "HEAD" ? undefined : body);
}
