/**
 * Asking the Hub: one request with its redirects, waits and retries. The token goes to the endpoint
 * and to no other host: redirects are followed here and not by fetch.
 */

import { messageOf, SaettaError } from "../util/errors.ts";
import { VERSION } from "../util/version.ts";
import { type HubAddress, hubPath } from "./address.ts";
import { HubError, refusalOf } from "./refusals.ts";
import { type HubSettings, hubSettings } from "./settings.ts";

/** What is reported while files are fetched and sent. */
export interface HubObserver {
  /** `done` of `total` bytes of a file. */
  progress(name: string, done: number, total: number): void;
  /** Something that took another way than usual, such as a wait that the Hub asked for. */
  note(text: string): void;
}

export interface Hub extends HubSettings {
  readonly observer: HubObserver;
  /** Waits so many seconds. */
  readonly sleep: (seconds: number) => Promise<void>;
  /** Seconds without a byte after which a connection is taken for dead. */
  readonly patience: number;
}

const SILENT: HubObserver = { progress: () => undefined, note: () => undefined };
let observer = SILENT;

/** What all downloads of this process are reported to; by default nothing is to a library user. */
export function observeHub(by: HubObserver): void {
  observer = by;
}

/** The Hub that the environment names. */
export function hubOf(settings: Partial<Hub> = {}): Hub {
  return {
    ...hubSettings(),
    observer,
    sleep: (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000)),
    patience: 30,
    ...settings,
  };
}

export interface Ask {
  readonly method?: "GET" | "HEAD" | "POST" | "PUT";
  readonly headers?: Readonly<Record<string, string>>;
  /** Called for every try, since a stream can be read once. */
  readonly body?: () => string | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>;
  /** Of what, in errors. */
  readonly address: HubAddress;
  readonly to?: "read" | "write";
  /** Whether a redirect is the answer; default: every redirect is followed. */
  readonly isAnswer?: (response: Response) => boolean;
  /** Statuses that are answers though they are no success. */
  readonly accept?: readonly number[];
}

/** An answer, and the headers of the redirects to it, the last one first. */
export interface Answer {
  readonly response: Response;
  /** Whether it came from another host, which knows nothing of repos and tokens. */
  readonly away: boolean;
  /** The value of a header in the answer or in the last redirect that has it. */
  header(name: string): string | undefined;
  /** Must be called, unless the body is read to its end. */
  close(): Promise<void>;
}

const MOST_REDIRECTS = 10;
const MOST_TRIES = 6;
const LONGEST_WAIT = 15 * 60;
const REDIRECTS = [301, 302, 303, 307, 308];

/**
 * Sends a request until it is answered. Waits at 429 as long as the Hub says, and at 5xx and
 * failures of the network twice as long each time. Throws HubError for what the Hub refuses, and
 * SaettaError when it cannot be reached.
 */
export async function ask(hub: Hub, url: string, request: Ask): Promise<Answer> {
  const where = hubPath(request.address);
  if (hub.offline)
    throw new SaettaError("is not in the cache, and HF_HUB_OFFLINE is set", { where, mend: "unset it to fetch it" });
  for (let tries = 1; ; tries++) {
    const answer = await follow(hub, url, request).catch((cause: unknown) => unreached(hub, where, cause));
    if (answer instanceof SaettaError) {
      if (tries >= MOST_TRIES || answer instanceof HubError) throw answer;
      await hub.sleep(backoff(tries));
      continue;
    }
    const { response } = answer;
    if (response.ok || REDIRECTS.includes(response.status) || request.accept?.includes(response.status)) return answer;
    const wait = waitFor(answer, tries);
    if (wait === undefined || tries >= MOST_TRIES || wait > LONGEST_WAIT)
      throw await refused(hub, answer, request, wait);
    await answer.close();
    const why =
      response.status === 429 ? "the Hub asks to slow down" : `the Hub answers with status ${response.status}`;
    if (wait >= 5) hub.observer.note(`${where}: ${why}; trying again in ${Math.ceil(wait)} s`);
    await hub.sleep(wait);
  }
}

/** Seconds to wait before the next try; undefined where trying again is of no use. */
function waitFor({ response: { status, headers }, away }: Answer, tries: number): number | undefined {
  // Addresses of other hosts are signed and run out; the Hub gives another one.
  if (away && status === 403) return backoff(tries);
  if (status !== 429 && status !== 408 && status < 500) return undefined;
  if (status === 501 || status === 505) return undefined;
  const asked = headers.get("retry-after");
  if (asked !== null) {
    const seconds = /^\d+(\.\d+)?$/.test(asked.trim()) ? Number(asked) : (Date.parse(asked) - Date.now()) / 1000;
    if (Number.isFinite(seconds)) return Math.max(0, seconds);
  }
  // IETF draft "RateLimit header fields": r requests remain, t seconds until there are more.
  const [, remaining, reset] = /r\s*=\s*(\d+)\s*;\s*t\s*=\s*(\d+)/.exec(headers.get("ratelimit") ?? "") ?? [];
  if (status === 429 && remaining === "0") return Number(reset) + 1;
  return backoff(tries);
}

export function backoff(tries: number): number {
  return 2 ** (tries - 1) * (0.75 + Math.random() / 2);
}

async function refused(hub: Hub, answer: Answer, request: Ask, wait: number | undefined): Promise<SaettaError> {
  const { response } = answer;
  const where = hubPath(request.address);
  const { status } = response;
  const body = (await response.text().catch(() => "")).slice(0, 4096);
  if (status === 429) {
    const mend = `try again in ${Math.ceil((wait ?? 60) / 60)} min${hub.token === undefined ? ", or set HF_TOKEN for a higher limit" : ""}`;
    return new SaettaError("the Hub has had too many requests from here", { where, mend });
  }
  if (answer.away)
    return new SaettaError(`the host of the files answers with status ${status}`, { where, mend: "try again later" });
  if (wait !== undefined)
    return new SaettaError(`the Hub fails with status ${status}`, { where, mend: "try again later" });
  const hasToken = hub.token !== undefined;
  const { address, to = "read" } = request;
  return refusalOf(status, response.headers, body, { address, endpoint: hub.endpoint, hasToken, to });
}

/** What fetch rejects with, in words. */
function unreached(hub: Hub, where: string, thrown: unknown): SaettaError {
  if (thrown instanceof SaettaError) return thrown;
  const { host } = new URL(hub.endpoint);
  return new UnreachedError(`${host} cannot be reached (${networkWords(thrown)})`, {
    where,
    mend: "check the network, or set HF_HUB_OFFLINE=1 to use what is in the cache",
    cause: thrown,
  });
}

/** The network failed, as opposed to the Hub. */
export class UnreachedError extends SaettaError {}

/** fetch says "fetch failed", and why in its cause. */
export function networkWords(thrown: unknown): string {
  for (let each = thrown; each instanceof Error; each = each.cause) {
    if (each.name === "TimeoutError" || each.name === "AbortError") return "no answer in time";
    const { code } = each as Error & { readonly code?: string };
    if (code?.startsWith("UND_ERR_CONNECT") || code?.includes("TIMEOUT")) return "no answer in time";
    if (code === "UND_ERR_SOCKET" || code === "EPIPE") return "the connection was cut";
    if (code?.startsWith("E") && each.cause === undefined) return messageOf(each);
    if (each.cause === undefined) return messageOf(each);
  }
  return messageOf(thrown);
}

/** The request and its redirects, once. */
async function follow(hub: Hub, start: string, request: Ask): Promise<Answer> {
  const { method = "GET", body, isAnswer = () => false } = request;
  const home = new URL(hub.endpoint).origin;
  const passed: Headers[] = [];
  let url = new URL(start);
  for (let hop = 0; hop <= MOST_REDIRECTS; hop++) {
    const headers: Record<string, string> = {
      "user-agent": `saetta/${VERSION}`,
      "accept-encoding": "identity",
      ...request.headers,
    };
    if (hub.token !== undefined && url.origin === home) headers.authorization = `Bearer ${hub.token}`;
    const started = new AbortController();
    const timer = setTimeout(() => started.abort(new DOMException("", "TimeoutError")), hub.patience * 1000);
    // A body takes its time; what comes back is watched by its reader.
    if (body !== undefined) clearTimeout(timer);
    const response = await fetch(url.href, {
      ...{ method, headers, redirect: "manual", signal: started.signal },
      ...(body === undefined ? {} : { body: body(), duplex: "half" }),
    }).finally(() => clearTimeout(timer));
    const close = async () => {
      await response.body?.cancel().catch(() => undefined);
    };
    const location = response.headers.get("location");
    const isRedirect = REDIRECTS.includes(response.status) && location !== null;
    if (!isRedirect || isAnswer(response)) {
      const header = (name: string) =>
        [response.headers, ...passed].map((each) => each.get(name)).find((value) => value !== null) ?? undefined;
      return { response, away: url.origin !== home, header, close };
    }
    await close();
    passed.unshift(response.headers);
    const next = URL.canParse(location, url.href) ? new URL(location, url) : undefined;
    if (
      next === undefined ||
      !/^https?:$/.test(next.protocol) ||
      (url.protocol === "https:" && next.protocol === "http:")
    )
      throw new HubError("other", "the Hub sends on to an address that is not followed", {
        where: hubPath(request.address),
      });
    url = next;
  }
  throw new HubError("other", `the Hub sends on more than ${MOST_REDIRECTS} times`, {
    where: hubPath(request.address),
  });
}

/** `prefix` and the repo's name as they are in addresses of the API: "/api/models/org/name". */
export function apiUrl(hub: Hub, { kind, name }: HubAddress, ...rest: readonly string[]): string {
  return [`${hub.endpoint}/api/${kind}s/${name}`, ...rest.map((each) => encodeURIComponent(each))].join("/");
}

/** The path of a file in an address: each part escaped, the slashes kept. */
export function escapedPath(path: string): string {
  return path.split("/").map(encodeURIComponent).join("/");
}
