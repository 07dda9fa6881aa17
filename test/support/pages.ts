/** The page's server, asked as browsers would not. */

import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { dirname, join } from "node:path";
import type { Events } from "../../src/dashboard/api.ts";

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

/** Connections are used again: there are thousands of questions. */
const agent = new Agent({ keepAlive: true, maxSockets: 8 });

/** Sends exactly this address, which no library has tidied up. */
export function ask(
  port: number,
  path: string,
  headers: Readonly<Record<string, string>> = {},
  method = "GET",
  body = "",
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: "127.0.0.1", port, path, method, headers, agent }, (response) => {
      const parts: Buffer[] = [];
      response.on("data", (part: Buffer) => parts.push(part));
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(parts).toString() }),
      );
      response.on("error", reject);
    });
    asked.on("error", reject);
    asked.end(body);
  });
}

export type Told = { [Name in keyof Events]: { readonly name: Name; readonly data: Events[Name] } }[keyof Events];

export interface Listener {
  /** Of the answer. */
  readonly status: Promise<number>;
  readonly told: Told[];
  /** Resolves to the first event that `approves` is true of. */
  until(approves: (event: Told) => boolean): Promise<Told>;
  close(): void;
}

/** Listens to server-sent events. */
export function listen(port: number, query = ""): Listener {
  const told: Told[] = [];
  const waiting = new Set<() => void>();
  const asked = request({ host: "127.0.0.1", port, path: `/api/events?${query}`, agent: false });
  const status = new Promise<number>((resolve, reject) => {
    asked.on("response", ({ statusCode }) => resolve(statusCode ?? 0)).on("error", reject);
  });
  asked.on("response", (response) => {
    let text = "";
    response.setEncoding("utf8").on("data", (part: string) => {
      const blocks = `${text}${part}`.split("\n\n");
      text = blocks.pop() ?? "";
      for (const block of blocks) {
        const [, name, data] = /^event: (.*)\ndata: (.*)$/.exec(block) ?? [];
        if (name !== undefined && data !== undefined) told.push({ name, data: JSON.parse(data) } as Told);
      }
      for (const look of waiting) look();
    });
    response.on("error", () => undefined);
  });
  asked.end();
  const until = (approves: (event: Told) => boolean) =>
    new Promise<Told>((resolve) => {
      const look = () => {
        const found = told.find(approves);
        if (found === undefined) return;
        waiting.delete(look);
        resolve(found);
      };
      waiting.add(look);
      look();
    });
  return { status, told, until, close: () => asked.destroy() };
}

/**
 * Something to serve where the page has not been built: what the server does with it is the same.
 */
export function standInPage(folder: string): string {
  mkdirSync(join(folder, "assets"), { recursive: true });
  writeFileSync(join(folder, "index.html"), "<!doctype html><title>stand-in</title>");
  writeFileSync(join(folder, "assets", "index-abc.js"), "export {};");
  writeFileSync(join(folder, "licenses.md"), "not served");
  return folder;
}

/** SHA-256 over every file below the folder, names and bytes. */
export function hashOf(folder: string): string {
  const hash = createHash("sha256");
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" }).toSorted()) {
    hash.update(`${name}\n`);
    if (statSync(join(folder, name)).isFile()) hash.update(readFileSync(join(folder, name)));
  }
  return hash.digest("hex");
}

/**
 * Some hundred ways to write an address of `secret`, a file beside the folder that is served, by
 * way of what is served.
 */
export function traversals(secret: string): string[] {
  const ups = ["..", "%2e%2e", ".%2e", "%252e%252e", "..%00", "..;", "%c0%ae%c0%ae", "..%5c..", "....", "．．"];
  const separators = ["/", "%2f", "\\", "%5c", "%252f", "/./"];
  const bases = ["/", "/assets/", "/features/", "/api/runs/run/", "/api/features/run/"];
  const found = new Set<string>();
  for (const base of bases) {
    for (const up of ups) {
      for (const separator of separators) {
        for (const depth of [1, 9])
          found.add(
            `${base}${`${up}${separator}`.repeat(depth)}${secret.replace(/^\//, "").replaceAll("/", separator)}`,
          );
      }
    }
    found.add(`${base}${secret}`);
    found.add(`${base}${encodeURIComponent(secret)}`);
    found.add(`${base}file://${secret}`);
    found.add(`${base}..${dirname(secret)}`);
  }
  for (const odd of [
    secret,
    `/${secret}`,
    `/.${secret}`,
    `/proc/self/root${secret}`,
    `/?file=${secret}`,
    `/index.html/..${secret}`,
    `/index.html%00${secret}`,
  ])
    found.add(odd);
  // What no client can send in a request line is no attack.
  return Array.from(found, (path) => encodeURI(path).replaceAll("%25", "%"));
}
