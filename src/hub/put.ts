/**
 * Bytes of a file to a signed address. fetch cannot send a stream of known length, which storage
 * hosts ask for, so this is Node's own client. No token: the address is its own permission.
 */

import { createReadStream } from "node:fs";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import { pipeline } from "node:stream/promises";
import { FormatError, SaettaError } from "../util/errors.ts";
import { type HubAddress, hubPath } from "./address.ts";
import { backoff, type Hub, networkWords } from "./hub.ts";

export interface PutBytes {
  readonly url: string;
  readonly from: string;
  /** The bytes [begin, end) of the file. */
  readonly begin: number;
  readonly end: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Of what, in errors. */
  readonly address: HubAddress;
}

const MOST_TRIES = 5;

/** Sends them, and again at 5xx and failures of the network. The answer's ETag. */
export async function putBytes(
  hub: Hub,
  put: PutBytes,
  onProgress: (done: number) => void,
): Promise<string | undefined> {
  const where = hubPath(put.address);
  const url = URL.canParse(put.url) ? new URL(put.url) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || (isSafe(hub.endpoint) && !isSafe(put.url)))
    throw new FormatError("the Hub names an address that is not uploaded to", { where });
  for (let tries = 1; ; tries++) {
    let why: string;
    try {
      const answer = await once(hub, url, put, onProgress);
      const { statusCode = 0, headers } = answer;
      answer.resume();
      if (statusCode >= 200 && statusCode < 300) return headers.etag;
      why = `the host of the files answers with status ${statusCode}`;
      if (statusCode < 500 && statusCode !== 429 && statusCode !== 408) throw new SaettaError(why, { where });
    } catch (thrown) {
      if (thrown instanceof SaettaError) throw thrown;
      why = networkWords(thrown);
    }
    if (tries >= MOST_TRIES) throw new SaettaError(`the upload failed (${why})`, { where, mend: "try again" });
    await hub.sleep(backoff(tries));
  }
}

const isSafe = (url: string): boolean => url.startsWith("https:");

async function once(
  hub: Hub,
  url: URL,
  { from, begin, end, headers }: PutBytes,
  onProgress: (done: number) => void,
): Promise<IncomingMessage> {
  const request = (url.protocol === "https:" ? httpsRequest : httpRequest)(url, {
    ...{ method: "PUT", timeout: hub.patience * 1000 },
    headers: { ...headers, "content-length": String(end - begin) },
  });
  request.on("timeout", () => request.destroy(new DOMException("", "TimeoutError")));
  const answer = new Promise<IncomingMessage>((resolve, reject) => {
    request.on("response", resolve).on("error", reject);
  });
  let done = 0;
  const counted = async function* (source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of source) {
      yield chunk;
      done += chunk.length;
      onProgress(done);
    }
  };
  const sent = pipeline(createReadStream(from, { start: begin, end: end - 1 }), counted, request);
  // An answer may come before all is sent, as when it is refused.
  sent.catch(() => undefined);
  return Promise.race([answer, sent.then(() => answer)]);
}
