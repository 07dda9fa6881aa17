/** What the Hub of the tests is made of. */

import { createHash } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";

export interface FakeFile {
  readonly bytes: Uint8Array;
  /** Stored with git LFS: its ETag is a SHA-256, and its content is at the other host. */
  readonly lfs?: boolean;
}

export interface FakeRepo {
  /** "org/name", for datasets "datasets/org/name". */
  readonly name: string;
  readonly gated?: boolean;
  readonly private?: boolean;
  /** Files by commit. */
  readonly commits: Map<string, Map<string, FakeFile>>;
  /** Commits by branch, tag or reference. */
  readonly refs: Map<string, string>;
}

/** A request as it came. */
export interface Seen {
  readonly host: "hub" | "storage";
  readonly method: string;
  readonly url: string;
  readonly authorization: string | undefined;
  readonly range: string | undefined;
}

/** What is done in place of the usual answer; undefined: nothing. */
export type Fault = (seen: Seen, response: ServerResponse, request: IncomingMessage) => boolean | undefined;

export interface HubServer extends AsyncDisposable {
  readonly endpoint: string;
  readonly storage: string;
  readonly repos: Map<string, FakeRepo>;
  /** Large files by SHA-256. */
  readonly blobs: Map<string, Uint8Array>;
  readonly seen: Seen[];
  /** Asked in order before each answer; true: it has answered. */
  readonly faults: Fault[];
  /** Entries in a page of a listing. */
  pageSize: number;
  /** Small files are sent on to another address of the same host. */
  resolveCache: boolean;
  close(): Promise<void>;
}

/** A token that may read what is private and what is gated, and may write. */
export const TOKEN = "hf_test";

export const COMMIT = "1234567890abcdef1234567890abcdef12345678";

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** The name of a git blob. */
export function gitSha1(bytes: Uint8Array): string {
  return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}

export function etagOf({ bytes, lfs }: FakeFile): string {
  return lfs === true ? sha256(bytes) : gitSha1(bytes);
}

export function sendJson(response: ServerResponse, value: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(200, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(value));
}

/** A refusal as the Hub words it. */
export function refuse(response: ServerResponse, status: number, code: string | undefined, message: string): void {
  response.writeHead(status, {
    "content-type": "application/json",
    ...(code === undefined ? {} : { "x-error-code": code }),
    "x-error-message": message,
  });
  response.end(JSON.stringify({ error: message }));
}

export async function textOf(request: IncomingMessage): Promise<string> {
  return Buffer.from(await bytesOf(request)).toString();
}

export async function bytesOf(request: IncomingMessage): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of request) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks);
}
