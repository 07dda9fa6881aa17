/** Which requests are answered at all, and what every answer says to the browser. */

import { timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";

export interface Refusal {
  readonly status: number;
  readonly text: string;
}

/** Bytes of a POST. */
export const MOST_BODY = 65_536;
/** The header of a POST that has the server's token, as Node spells it. */
export const TOKEN_HEADER = "x-saetta-token";

/**
 * Why a request is refused; undefined when it is not. `names`: what the server may be called
 * besides localhost and by address. `token`: what a POST must state; without one there are none.
 *
 * A page of somebody else in the same browser can send requests here. Its own name for this machine
 * (DNS rebinding) stands in Host, so only names that are ours are answered; an address is nobody's
 * to redirect. Requests that say where they come from must come from here.
 */
export function refusalOf(
  { method, url, headers }: IncomingMessage,
  names: readonly string[],
  token?: string,
): Refusal | undefined {
  const isPost = method === "POST" && token !== undefined;
  if (method !== "GET" && method !== "HEAD" && !isPost) return { status: 405, text: "only GET and HEAD" };
  if (headers["transfer-encoding"] !== undefined || (!isPost && (headers["content-length"] ?? "0") !== "0"))
    return { status: 400, text: "no body is read" };
  if (url === undefined || !/^\/[\x21-\x7e]*$/.test(url) || url.length > 4096)
    return { status: 400, text: "not an address of this server" };
  const { host, origin } = headers;
  if (host === undefined || !isOurs(host, names)) {
    return { status: 403, text: "this server is not called so; see saetta serve --help for --host" };
  }
  if (origin !== undefined && origin !== `http://${host}`) return { status: 403, text: "not for other pages" };
  const site = headers["sec-fetch-site"];
  const walked = !isPost && headers["sec-fetch-mode"] === "navigate" && headers["sec-fetch-dest"] === "document";
  if (site !== undefined && site !== "same-origin" && site !== "none" && !walked)
    return { status: 403, text: "not for other pages" };
  return isPost ? postRefusal(headers, token) : undefined;
}

/**
 * What a POST needs besides: an Origin (every browser sends one), JSON of a stated size, and the
 * server's token, which only a page of ours can read. A form of another page has none of these.
 */
function postRefusal(headers: IncomingMessage["headers"], token: string): Refusal | undefined {
  if (headers.origin === undefined) return { status: 403, text: "not for other pages" };
  const length = headers["content-length"];
  if (length === undefined || !/^\d{1,15}$/.test(length)) return { status: 411, text: "the body states no length" };
  if (Number(length) > MOST_BODY) return { status: 413, text: `a body has at most ${MOST_BODY} bytes` };
  if (!/^application\/json(;\s*charset=utf-8)?$/i.test(headers["content-type"] ?? ""))
    return { status: 415, text: "the body must be application/json" };
  const [given, ours] = [headers[TOKEN_HEADER], token].map((text) => Buffer.from(String(text)));
  if (given!.length !== ours!.length || !timingSafeEqual(given!, ours!))
    return { status: 403, text: "the token is not this server's; reload the page" };
  return undefined;
}

/** The port is not looked at: through a tunnel it is another. */
function isOurs(host: string, names: readonly string[]): boolean {
  const [, name = ""] = /^(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::\d{1,5})?$/.exec(host) ?? [];
  const lower = name.toLowerCase();
  return lower === "localhost" || isIP(lower.replace(/^\[|\]$/g, "")) !== 0 || names.includes(lower);
}

const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join("; ");

/**
 * On every answer. Nothing but this server's own files may be loaded, run or asked; nobody may
 * frame, embed or keep it.
 */
export const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  "Content-Security-Policy": POLICY,
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "X-Frame-Options": "DENY",
  "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
  "Cache-Control": "no-store",
};
