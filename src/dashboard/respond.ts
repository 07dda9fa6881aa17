/** How the server answers: bytes with their type, JSON, or one line that says what is wrong. */

import type { ServerResponse } from "node:http";

export function sendJson(response: ServerResponse, value: unknown): void {
  send(response, "application/json; charset=utf-8", Buffer.from(JSON.stringify(value)));
}

/** `named`: its name changes whenever its bytes do. */
export function send(response: ServerResponse, type: string, bytes: Uint8Array, named = false): void {
  if (named) response.setHeader("Cache-Control", "private, max-age=31536000, immutable");
  response.writeHead(200, { "Content-Type": type, "Content-Length": bytes.length }); // Node sends no body after HEAD
  response.end(bytes);
}

export function fail(response: ServerResponse, status: number, text: string): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const bytes = Buffer.from(`${text}\n`);
  response.writeHead(status, { "Content-Type": "text/plain; charset=utf-8", "Content-Length": bytes.length });
  response.end(bytes);
}
