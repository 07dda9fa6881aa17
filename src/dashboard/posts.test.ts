/** What may be changed over HTTP, by whom, and what is done about everybody else. */

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { writeFeatures } from "../../test/support/features.ts";
import { POLL_MS } from "../../test/support/limits.ts";
import { ask, hashOf, standInPage } from "../../test/support/pages.ts";
import { linesOf, writeRun } from "../../test/support/run-folder.ts";
import { explorerApi } from "../explorer/api.ts";
import { httpSource } from "../explorer/shared/http-source.ts";
import { type Dashboard, serveDashboard } from "./server.ts";

const LATENTS = 5;
const PATH = "/api/features/run/labels";
const api = explorerApi();
let folder: string;
let page: Dashboard;
let token: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "saetta-posts-"));
  const run = writeRun(join(folder, "runs", "run"), linesOf(1, 5));
  writeRun(join(folder, "runs", "bare"), linesOf(1, 5));
  await writeFeatures(run, LATENTS);
  page = await serveDashboard({
    folders: [join(folder, "runs")],
    port: 0,
    assets: standInPage(join(folder, "page")),
    patience: POLL_MS,
    features: api.answer,
    posts: api.post,
  });
  ({ token } = JSON.parse((await ask(page.port, "/api/token")).body) as { token: string });
});
afterAll(async () => {
  await page.close();
  await api[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

const file = () => join(folder, "runs", "run", "labels.jsonl");
const ours = () => ({
  Origin: `http://127.0.0.1:${page.port}`,
  "Content-Type": "application/json",
  "X-Saetta-Token": token,
  "Sec-Fetch-Site": "same-origin",
});
const post = (body: string, headers: Readonly<Record<string, string>> = ours(), path = PATH) =>
  ask(page.port, path, { ...headers, "Content-Length": String(Buffer.byteLength(body)) }, "POST", body);
const BODY = JSON.stringify({ latent: 2, name: "x" });

describe("a label", () => {
  afterEach(() => vi.unstubAllGlobals());

  it("is changed by the page, found by its words and in the file at once", async () => {
    // As browsers do.
    const send = fetch;
    vi.stubGlobal("fetch", (url: string, init: RequestInit = {}) =>
      send(url, { ...init, headers: { ...(init.headers as Record<string, string>), Origin: ours().Origin } }),
    );
    const source = httpSource(`http://127.0.0.1:${page.port}/api/features/run`);
    expect(await source.relabel!(2, { name: "days of the week" })).toEqual({ name: "days of the week", note: "" });
    expect(await source.relabel!(2, { note: "weakly <b>months</b>\u202e" })).toEqual({
      name: "days of the week",
      note: "weakly <b>months</b>\u202e",
    });
    const query = { search: "week", sort: "match", descending: true, offset: 0, count: 5 } as const;
    expect((await source.latents(query)).rows).toMatchObject([{ latent: 2, label: { name: "days of the week" } }]);
    expect((await source.latents({ ...query, search: "", named: true })).total).toBe(1);
    expect((await source.latent(2)).label?.note).toBe("weakly <b>months</b>\u202e");
    expect((await source.latent(1)).label).toBeUndefined();
    expect(readFileSync(file(), "utf8").trimEnd().split("\n")).toHaveLength(2);
    await expect(source.relabel!(LATENTS, { name: "x" })).rejects.toThrow(
      `latent must be a whole number from 0 to ${LATENTS - 1}, but is ${LATENTS}`,
    );
    expect(await source.relabel!(2, { name: "", note: "" })).toEqual({ name: "", note: "" });
    expect((await source.latents({ ...query, search: "", named: true })).total).toBe(0);
  });
});

describe("nobody else changes anything", () => {
  it("who has not the server's token, or comes from elsewhere", async () => {
    const before = hashOf(join(folder, "runs"));
    const { Origin, ...noOrigin } = ours();
    const wrong: readonly (readonly [Readonly<Record<string, string>>, number])[] = [
      [noOrigin, 403],
      [{ ...ours(), Origin: "http://evil.test" }, 403],
      [{ ...ours(), Origin: "null" }, 403],
      [{ ...ours(), Origin: `${Origin}0` }, 403],
      [{ ...ours(), Host: "evil.test" }, 403],
      [{ ...ours(), "Sec-Fetch-Site": "cross-site" }, 403],
      [{ ...ours(), "Sec-Fetch-Site": "same-site" }, 403],
      [{ ...ours(), "X-Saetta-Token": "" }, 403],
      [{ ...ours(), "X-Saetta-Token": `${token.slice(1)}A` }, 403],
      [{ ...ours(), "X-Saetta-Token": `${token}A` }, 403],
      [{ ...ours(), "Content-Type": "text/plain" }, 415],
      [{ ...ours(), "Content-Type": "application/x-www-form-urlencoded" }, 415],
      [{ ...ours(), "Content-Type": "multipart/form-data; boundary=x" }, 415],
    ];
    for (const [headers, status] of wrong)
      expect([headers, (await post(BODY, headers)).status]).toEqual([headers, status]);
    const reading = { Origin: "http://evil.test" };
    expect((await ask(page.port, "/api/token", reading)).status).toBe(403);
    for (const method of ["PUT", "DELETE", "PATCH", "OPTIONS"])
      expect((await ask(page.port, PATH, ours(), method)).status).toBe(405);
    expect(hashOf(join(folder, "runs"))).toBe(before);
  });

  it("with a body that is too long, is none, or comes in pieces", async () => {
    expect((await post("x".repeat(65_537))).status).toBe(413);
    const raw = (head: string, body = "") =>
      new Promise<string>((resolve) => {
        const socket = connect(page.port, "127.0.0.1");
        let answer = "";
        const headers = Object.entries(ours()).map(([name, value]) => `${name}: ${value}`);
        socket.on("data", (part) => {
          answer += part.toString();
        });
        socket.on("error", () => resolve(answer)).on("close", () => resolve(answer));
        socket.write(
          `POST ${PATH} HTTP/1.1\r\nHost: 127.0.0.1:${page.port}\r\n${headers.join("\r\n")}\r\n${head}\r\n\r\n${body}`,
        );
      });
    expect(await raw("Transfer-Encoding: chunked", `${BODY.length.toString(16)}\r\n${BODY}\r\n0\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 400 /,
    );
    expect(await raw("X: y")).toMatch(/^HTTP\/1\.1 411 /);
    expect(await raw("Content-Length: 99999999999")).toMatch(/^HTTP\/1\.1 413 /);
    expect(await raw("Content-Length: -1")).toMatch(/^HTTP\/1\.1 400 /);
  });

  it("a thousand times, while the page answers others", async () => {
    const before = readFileSync(file(), "utf8");
    const odd: string[] = [
      "",
      "{",
      "NaN",
      "null",
      "[]",
      '"x"',
      '{"latent":NaN,"name":"x"}',
      '{"latent":1e999,"name":"x"}',
      '{"latent":-1,"name":"x"}',
      '{"latent":2.5,"name":"x"}',
      '{"latent":"2","name":"x"}',
      '{"latent":2,"name":3}',
      '{"latent":2,"name":{}}',
      '{"latent":2,"note":null,"name":[]}',
      '{"latent":2,"latent":3,"name":"x"}',
      `{"latent":2,"name":"${"n".repeat(201)}"}`,
      `{"latent":2,"note":"${"n".repeat(10_001)}"}`,
      `${"[".repeat(60_000)}`,
      `{"a":${"[".repeat(100)}${"]".repeat(100)}}`,
      '{"latent":99999999999999999999,"name":"x"}',
      "\u0000\u0001",
      '\ufffe{"latent":2}',
    ];
    const paths = [
      PATH,
      "/api/features/run/labels/2",
      "/api/features/run",
      "/api/features/none/labels",
      "/api/runs/run",
    ];
    const answers = await Promise.all(
      Array.from(
        { length: 1000 },
        async (_, i) => (await post(odd[i % odd.length]!, ours(), paths[i % paths.length])).status,
      ),
    );
    expect([...new Set(answers)].toSorted()).toEqual([400, 404]);
    expect((await post(BODY, ours(), "/api/features/bare/labels")).status).toBe(404);
    expect(readFileSync(file(), "utf8")).toBe(before);
    expect((await ask(page.port, "/api/features/run/summary")).status).toBe(200);
  });
});

it("hostile names are kept as text, and floods of them lose none", async () => {
  const names = [
    "<script>alert(1)</script>",
    "\u202eabc",
    "\u0000\u0007",
    "𝒳".repeat(50),
    "a\nb",
    "</script><!--",
    "{{x}}",
  ];
  const answers = await Promise.all(
    Array.from({ length: 300 }, (_, i) =>
      post(JSON.stringify({ latent: i % LATENTS, name: names[i % names.length], note: `note ${i}` })),
    ),
  );
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
  const notes = new Set(
    readFileSync(file(), "utf8")
      .trimEnd()
      .split("\n")
      .map((line) => (JSON.parse(line) as { note?: string }).note),
  );
  for (let i = 0; i < 300; i++) expect(notes).toContain(`note ${i}`);
  expect((await ask(page.port, "/api/features/run/latents?named=1&count=9")).headers["content-type"]).toBe(
    "application/json; charset=utf-8",
  );
});
