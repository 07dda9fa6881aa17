/** Which requests are answered at all, and what every answer says to the browser. */

import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";

export interface Refusal {
  readonly status: number;
  readonly text: string;
}

/**
 * Why a request is refused; undefined when it is not. `names`: what the server may be called
 * besides localhost and by address.
 *
 * A page of somebody else in the same browser can send requests here. Its own name for this machine
 * (DNS rebinding) stands in Host, so only names that are ours are answered; an address is nobody's
 * to redirect. Requests that say where they come from must come from here.
 */
export function refusalOf({ method, url, headers }: IncomingMessage, names: readonly string[]): Refusal | undefined {
  if (method !== "GET" && method !== "HEAD") return { status: 405, text: "only GET and HEAD" };
  if (headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0")
    return { status: 400, text: "no body is read" };
  if (url === undefined || !/^\/[\x21-\x7e]*$/.test(url) || url.length > 4096)
    return { status: 400, text: "not an address of this server" };
  const { host, origin } = headers;
  if (host === undefined || !isOurs(host, names)) {
    return { status: 403, text: "this server is not called so; see saetta serve --help for --host" };
  }
  if (origin !== undefined && origin !== `http://${host}`) return { status: 403, text: "not for other pages" };
  const site = headers["sec-fetch-site"];
  const walked = headers["sec-fetch-mode"] === "navigate" && headers["sec-fetch-dest"] === "document";
  if (site !== undefined && site !== "same-origin" && site !== "none" && !walked)
    return { status: 403, text: "not for other pages" };
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
