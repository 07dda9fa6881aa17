/**
 * Files into a repo of the Hub, as one commit: small ones in the commit itself, large ones first to
 * where the Hub says (git LFS's batch protocol), in parts where it asks for parts.
 */

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, readFile, stat } from "node:fs/promises";
import { FormatError, SaettaError, UsageError } from "../util/errors.ts";
import { Fields, type Json, parseJson } from "../util/json.ts";
import { type HubAddress, hubPath } from "./address.ts";
import { type Answer, apiUrl, ask, type Hub } from "./hub.ts";
import { putBytes } from "./put.ts";

export interface FileToUpload {
  /** In the repo. */
  readonly path: string;
  /** On this disk. */
  readonly from: string;
}

export interface Uploaded {
  readonly commit: string;
  /** The commit's page. */
  readonly page: string;
}

/** Throws UsageError where nothing can be uploaded: offline, or without a token. */
export function checkMayUpload(hub: Hub, address: HubAddress): void {
  const where = hubPath(address);
  if (address.kind !== "model") throw new UsageError("is a dataset", { where, mend: "name a model: hf://org/repo" });
  if (hub.offline) throw new UsageError("HF_HUB_OFFLINE is set", { where, mend: "unset it to upload" });
  if (hub.token !== undefined) return;
  throw new UsageError("uploads need a token", {
    where,
    mend: "set HF_TOKEN to one that may write (https://huggingface.co/settings/tokens)",
  });
}

/** Makes the repo, unless it is there. Whether it was made. */
export async function createRepo(hub: Hub, address: HubAddress, isPrivate: boolean): Promise<boolean> {
  const [organization, name] = address.name.split("/");
  const answer = await post(hub, `${hub.endpoint}/api/repos/create`, address, {
    ...{ name, organization, type: "model" },
    ...(isPrivate ? { private: true } : {}),
  });
  await answer.close();
  return answer.response.status !== 409;
}

/** Uploads the files as one commit on the address' revision. */
export async function upload(
  hub: Hub,
  address: HubAddress,
  files: readonly FileToUpload[],
  summary: string,
): Promise<Uploaded> {
  const sized = await Promise.all(files.map(async (file) => ({ ...file, bytes: (await stat(file.from)).size })));
  const large = await largeAmong(hub, address, sized);
  const hashed: (SizedFile & { readonly oid: string })[] = [];
  for (const file of sized) if (large.has(file.path)) hashed.push({ ...file, oid: await sha256Of(file.from) });
  if (hashed.length > 0) await uploadLarge(hub, address, hashed);

  const lines: unknown[] = [{ key: "header", value: { summary, description: "" } }];
  for (const { path, oid, bytes } of hashed)
    lines.push({ key: "lfsFile", value: { path, algo: "sha256", oid, size: bytes } });
  for (const { path, from } of sized) {
    if (large.has(path)) continue;
    const content = (await readFile(from)).toString("base64");
    lines.push({ key: "file", value: { path, content, encoding: "base64" } });
  }
  const url = apiUrl(hub, address, "commit", address.revision);
  const body = lines.map((line) => `${JSON.stringify(line)}\n`).join("");
  const fields = await answered(
    await ask(hub, url, {
      ...{ method: "POST", address, to: "write", body: () => body },
      headers: { "content-type": "application/x-ndjson" },
    }),
    url,
  );
  return { commit: fields.string("commitOid"), page: fields.string("commitUrl") };
}

interface SizedFile extends FileToUpload {
  readonly bytes: number;
}

const SAMPLE_BYTES = 512;

/** Those that the Hub wants in its large storage: it decides by name, size and start. */
async function largeAmong(hub: Hub, address: HubAddress, files: readonly SizedFile[]): Promise<Set<string>> {
  const asked: unknown[] = [];
  for (const { path, from, bytes } of files) {
    const handle = await open(from);
    const sample = Buffer.alloc(Math.min(SAMPLE_BYTES, bytes));
    await handle.read(sample, 0, sample.length, 0).finally(() => handle.close());
    asked.push({ path, size: bytes, sample: sample.toString("base64") });
  }
  const url = apiUrl(hub, address, "preupload", address.revision);
  const answer = await answered(await post(hub, url, address, { files: asked }), url);
  const modes = new Map(
    listOf(answer, "files").map((each) => {
      const file = new Fields(each, "a file", url);
      return [file.string("path"), file.string("uploadMode")];
    }),
  );
  // An empty file cannot be in the large storage.
  return new Set(files.filter(({ path, bytes }) => bytes > 0 && modes.get(path) === "lfs").map(({ path }) => path));
}

const LFS = "application/vnd.git-lfs+json";

async function uploadLarge(
  hub: Hub,
  address: HubAddress,
  files: readonly (SizedFile & { readonly oid: string })[],
): Promise<void> {
  const url = `${hub.endpoint}/${address.name}.git/info/lfs/objects/batch`;
  const asked = {
    ...{ operation: "upload", transfers: ["basic", "multipart"], hash_algo: "sha256" },
    objects: files.map(({ oid, bytes }) => ({ oid, size: bytes })),
  };
  const answer = await answered(await post(hub, url, address, asked, { accept: LFS, "content-type": LFS }), url);
  for (const each of listOf(answer, "objects")) {
    const object = new Fields(each, "an object", url);
    const file = files.find(({ oid }) => oid === object.get("oid"));
    if (file === undefined) throw new FormatError("names an object that was not asked about", { where: url });
    if (object.has("error")) {
      const { message } = object.fields("error").object;
      throw new SaettaError(`the Hub does not take ${file.path} (${String(message).slice(0, 160)})`, {
        where: hubPath(address),
        mend: "check the repo's storage at the Hub",
      });
    }
    // Without actions the Hub has the content already.
    if (object.has("actions")) await uploadObject(hub, address, file, object.fields("actions"));
  }
}

async function uploadObject(
  hub: Hub,
  address: HubAddress,
  file: SizedFile & { readonly oid: string },
  actions: Fields,
): Promise<void> {
  const { oid, bytes, path, from } = file;
  const action = actions.fields("upload");
  const header = action.has("header") ? action.fields("header") : undefined;
  const headers = Object.entries(header?.object ?? {}).filter((each): each is [string, string] => isText(each[1]));
  const href = action.string("href");
  const put = (to: string, begin: number, end: number, more: Record<string, string>) =>
    putBytes(hub, { url: to, from, begin, end, headers: more, address }, (done) =>
      hub.observer.progress(path, begin + done, bytes),
    );
  if (header?.has("chunk_size")) {
    const size = Number(header.get("chunk_size"));
    if (!Number.isSafeInteger(size) || size < 1)
      throw new FormatError("chunk_size is no size", { where: action.where });
    const urls = headers.filter(([name]) => /^\d+$/.test(name)).sort(([a], [b]) => Number(a) - Number(b));
    if (urls.length !== Math.ceil(bytes / size))
      throw new FormatError(`${urls.length} parts of ${size} bytes are not the ${bytes} of ${path}`, {
        where: action.where,
      });
    const parts: unknown[] = [];
    for (const [i, [, url]] of urls.entries()) {
      const etag = await put(url, i * size, Math.min(bytes, (i + 1) * size), {});
      if (etag === undefined) throw new FormatError(`part ${i + 1} of ${path} has no ETag`, { where: action.where });
      parts.push({ partNumber: i + 1, etag });
    }
    await (await post(hub, href, address, { oid, parts }, { accept: LFS, "content-type": LFS })).close();
  } else await put(href, 0, bytes, Object.fromEntries(headers));
  if (!actions.has("verify")) return;
  await (await post(hub, actions.fields("verify").string("href"), address, { oid, size: bytes })).close();
}

const isText = (value: Json): value is string => typeof value === "string";

async function sha256Of(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Uint8Array);
  return hash.digest("hex");
}

/** A repo that is there already is an answer too. */
function post(
  hub: Hub,
  url: string,
  address: HubAddress,
  value: unknown,
  headers: Readonly<Record<string, string>> = { "content-type": "application/json" },
): Promise<Answer> {
  const accept = url.endsWith("/api/repos/create") ? [409] : [];
  return ask(hub, url, { method: "POST", to: "write", address, headers, accept, body: () => JSON.stringify(value) });
}

async function answered({ response }: Answer, where: string): Promise<Fields> {
  return new Fields(parseJson(new Uint8Array(await response.arrayBuffer()), where), "the answer", where);
}

function listOf(fields: Fields, name: string): readonly Json[] {
  const value = fields.get(name);
  if (Array.isArray(value)) return value as readonly Json[];
  throw new FormatError(`the answer has no "${name}"`, { where: fields.where });
}
