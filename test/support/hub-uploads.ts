/** Uploads to the Hub of the tests: create, preupload, LFS batch, PUT, verify, commit. */

import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { bytesOf, type FakeFile, type HubServer, refuse, sendJson, sha256, textOf } from "./hub-parts.ts";

/** The size of a part of what is uploaded in several; of real ones it is some megabytes. */
const PART_BYTES = 4096;

/** Whether the request was one of an upload. */
export async function answerUpload(
  hub: HubServer,
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
): Promise<boolean> {
  const { method } = request;
  const path = decodeURIComponent(url.pathname);
  if (method === "PUT") {
    await receive(hub, request, response, url);
    return true;
  }
  if (method !== "POST") return false;
  if (path.startsWith("/complete/")) {
    await complete(hub, request, response, url);
    return true;
  }
  if (path.endsWith("/paths-info") || path.includes("/paths-info/")) return false;
  if (request.headers.authorization === undefined) {
    refuse(response, 401, undefined, "Invalid username or password.");
    return true;
  }
  if (path === "/api/repos/create") return createRepo(hub, request, response);
  const [, batchOf] = /^\/(.+)\.git\/info\/lfs\/objects\/batch$/.exec(path) ?? [];
  if (batchOf !== undefined) return batch(hub, request, response);
  if (path === "/verify") {
    const { oid } = JSON.parse(await textOf(request)) as { readonly oid: string };
    if (hub.blobs.has(oid)) sendJson(response, {});
    else refuse(response, 404, undefined, "not uploaded");
    return true;
  }
  const [, name = "", what, revision = ""] =
    /^\/api\/models\/([^/]+\/[^/]+)\/(preupload|commit)\/(.+)$/.exec(path) ?? [];
  const repo = hub.repos.get(name);
  if (what === undefined) return false;
  if (repo === undefined) refuse(response, 404, "RepoNotFound", "Repository not found");
  else if (what === "preupload") {
    const { files } = JSON.parse(await textOf(request)) as {
      readonly files: readonly { readonly path: string; readonly size: number; readonly sample: string }[];
    };
    const modes = files.map((file) => ({
      ...{ path: file.path, shouldIgnore: false },
      uploadMode: file.path.endsWith(".safetensors") || file.size > 10_000_000 ? "lfs" : "regular",
    }));
    sendJson(response, { files: modes });
  } else await commit(hub, name, revision, request, response);
  return true;
}

async function createRepo(hub: HubServer, request: IncomingMessage, response: ServerResponse): Promise<boolean> {
  const asked = JSON.parse(await textOf(request)) as {
    readonly name: string;
    readonly organization: string;
    readonly private?: boolean;
  };
  const name = `${asked.organization}/${asked.name}`;
  if (hub.repos.has(name)) {
    refuse(response, 409, undefined, "You already created this model repo");
    return true;
  }
  const sha = randomBytes(20).toString("hex");
  const first = new Map([[".gitattributes", { bytes: new TextEncoder().encode("*.safetensors filter=lfs\n") }]]);
  const isPrivate = asked.private === true;
  hub.repos.set(name, { name, private: isPrivate, commits: new Map([[sha, first]]), refs: new Map([["main", sha]]) });
  sendJson(response, { url: `${hub.endpoint}/${name}` });
  return true;
}

async function batch(hub: HubServer, request: IncomingMessage, response: ServerResponse): Promise<boolean> {
  const { objects } = JSON.parse(await textOf(request)) as {
    readonly objects: readonly { readonly oid: string; readonly size: number }[];
  };
  const verify = { href: `${hub.endpoint}/verify`, header: {} };
  const answers = objects.map(({ oid, size }) => {
    if (hub.blobs.has(oid)) return { oid, size };
    if (size <= 2 * PART_BYTES)
      return { oid, size, actions: { upload: { href: `${hub.storage}/put/${oid}`, header: {} }, verify } };
    const parts = Array.from({ length: Math.ceil(size / PART_BYTES) }, (_, i): [string, string] => [
      String(i + 1).padStart(5, "0"),
      `${hub.storage}/part/${oid}/${i + 1}`,
    ]);
    const header = { chunk_size: String(PART_BYTES), ...Object.fromEntries(parts) };
    return { oid, size, actions: { upload: { href: `${hub.endpoint}/complete/${oid}`, header }, verify } };
  });
  sendJson(response, { transfer: "multipart", objects: answers }, { "content-type": "application/vnd.git-lfs+json" });
  return true;
}

async function receive(
  hub: HubServer,
  request: IncomingMessage,
  response: ServerResponse,
  { pathname }: URL,
): Promise<void> {
  const [, kind, oid = "", part = ""] = pathname.split("/");
  const bytes = await bytesOf(request);
  if (kind === "put" && sha256(bytes) !== oid) {
    response.writeHead(400);
    response.end("<Error>other content</Error>");
    return;
  }
  hub.blobs.set(kind === "put" ? oid : `${oid}/${part}`, bytes);
  response.writeHead(200, { etag: `"${part}-${bytes.length}"` });
  response.end();
}

async function complete(
  hub: HubServer,
  request: IncomingMessage,
  response: ServerResponse,
  { pathname }: URL,
): Promise<void> {
  const oid = pathname.split("/").at(-1)!;
  const { parts } = JSON.parse(await textOf(request)) as {
    readonly parts: readonly { readonly partNumber: number; readonly etag: string }[];
  };
  const found = parts.map(({ partNumber }) => hub.blobs.get(`${oid}/${partNumber}`) ?? new Uint8Array());
  const whole = Buffer.concat(found);
  const named = parts.every(({ partNumber, etag }, i) => etag === `"${partNumber}-${found[i]!.length}"`);
  if (!named || sha256(whole) !== oid) return refuse(response, 400, undefined, "the parts are not those of the object");
  hub.blobs.set(oid, whole);
  sendJson(response, {});
}

async function commit(
  hub: HubServer,
  name: string,
  revision: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const repo = hub.repos.get(name)!;
  const before = repo.refs.get(revision);
  if (before === undefined) return refuse(response, 404, "RevisionNotFound", `Invalid rev id: ${revision}`);
  const files = new Map(repo.commits.get(before));
  for (const line of (await textOf(request)).split("\n").filter((each) => each !== "")) {
    const { key, value } = JSON.parse(line) as { readonly key: string; readonly value: Record<string, string> };
    if (key === "file") files.set(value.path!, { bytes: Buffer.from(value.content!, "base64") });
    if (key !== "lfsFile") continue;
    const bytes = hub.blobs.get(value.oid!);
    if (bytes === undefined) return refuse(response, 400, undefined, `${value.oid} was not uploaded`);
    files.set(value.path!, { bytes, lfs: true } satisfies FakeFile);
  }
  const sha = randomBytes(20).toString("hex");
  repo.commits.set(sha, files);
  repo.refs.set(revision, sha);
  sendJson(response, { success: true, commitOid: sha, commitUrl: `${hub.endpoint}/${name}/commit/${sha}` });
}
