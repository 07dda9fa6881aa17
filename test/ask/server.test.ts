/** Questions over HTTP: who is answered, within which bounds, and that the page stays alive. */

import { rm } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AskServer } from "../../src/ask/ask-server.ts";
import { TOKEN_HEADER } from "../../src/dashboard/guard.ts";
import { type Dashboard, serveDashboard } from "../../src/dashboard/server.ts";
import type { AskAbout, TextAnswer } from "../../src/explorer/shared/ask.ts";
import { MODEL, trainOnExample } from "../support/asked.ts";
import { POLL_MS } from "../support/limits.ts";
import { type Answer, ask, hashOf, standInPage } from "../support/pages.ts";
import { scratch } from "../support/scratch.ts";

let folder = "";
let model: AskServer;
let page: Dashboard;
let about: AskAbout;
let token = "";
beforeAll(async () => {
  folder = await scratch("ask-server");
  await trainOnExample(folder);
  model = await AskServer.start({ model: MODEL, threads: 1 });
  page = await serveDashboard({
    folders: [join(folder, "runs")],
    port: 0,
    assets: standInPage(join(folder, "page")),
    patience: POLL_MS,
    ask: model,
  });
  about = JSON.parse((await ask(page.port, "/api/ask/first")).body) as AskAbout;
  ({ token } = JSON.parse((await ask(page.port, "/api/token")).body) as { token: string });
});
afterAll(async () => {
  await page?.close();
  await model?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

const JSON_TYPE = "application/json";

/** Posts a body as the page does, with `headers` in the place of its own. `kind`: or an address. */
function post(kind: string, body: string, headers: Readonly<Record<string, string | undefined>> = {}): Promise<Answer> {
  const all = {
    "content-type": JSON_TYPE,
    "content-length": String(Buffer.byteLength(body)),
    [TOKEN_HEADER]: token,
    origin: `http://127.0.0.1:${page.port}`,
    ...headers,
  };
  const given = Object.entries(all).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return ask(
    page.port,
    kind.startsWith("/") ? kind : `/api/ask/first/${kind}`,
    Object.fromEntries(given),
    "POST",
    body,
  );
}

const TEXT = JSON.stringify({ text: "The old man said nothing." });
const STEER = {
  text: "The old man",
  edits: [{ latent: 3, kind: "set", value: 4, positions: "all" }],
  continuation: { tokens: 2, seed: 1, temperature: 1 },
};

async function isAlive(): Promise<void> {
  const { status, body } = await post("text", TEXT);
  expect(status).toBe(200);
  expect((JSON.parse(body) as TextAnswer).tokens.map(({ text }) => text).join("")).toContain(
    "The old man said nothing.",
  );
  expect((await ask(page.port, "/")).status).toBe(200);
}

describe("a page of this server", () => {
  it("learns what it may ask, and is answered", async () => {
    expect(about).toMatchObject({ name: "first", latents: 128, width: 256, context: 256 });
    expect(JSON.parse((await ask(page.port, "/api/ask")).body)).toEqual({ model: MODEL, others: [] });
    await isAlive();
    const { status, body } = await post("steer", JSON.stringify(STEER));
    expect(status).toBe(200);
    expect(JSON.parse(body)).toMatchObject({ continuation: { without: expect.any(Array), with: expect.any(Array) } });
    expect((await ask(page.port, "/ask/first")).body).toContain("stand-in");
  });

  it("is told when there is no model, no run or no such question", async () => {
    const plain = await serveDashboard({ folders: [join(folder, "runs")], port: 0, assets: join(folder, "page") });
    expect(JSON.parse((await ask(plain.port, "/api/ask")).body)).toEqual({ model: null, others: [] });
    expect((await ask(plain.port, "/api/ask/first")).body).toBe(
      "this server has no language model: start it with saetta serve RUN --model MODEL\n",
    );
    expect((await ask(plain.port, "/api/ask/first/text", {}, "POST")).status).toBe(405);
    await plain.close();
    expect((await ask(page.port, "/api/ask/second")).status).toBe(404);
    expect((await ask(page.port, "/api/ask/first/text")).status).toBe(404);
    expect((await ask(page.port, "/api/ask/first/steer/more")).status).toBe(404);
  });
});

describe("nobody else is answered", () => {
  it.each([
    ["another page", { origin: "http://evil.test" }, 403],
    ["a page of a file", { origin: "null" }, 403],
    ["a page on another port", { origin: "http://127.0.0.1:1" }, 403],
    ["another site", { "sec-fetch-site": "cross-site" }, 403],
    [
      "a form of another site that is walked to",
      { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" },
      403,
    ],
    ["a name that points here", { host: "evil.test" }, 403],
    ["no page at all", { origin: undefined }, 403],
    ["no token", { [TOKEN_HEADER]: undefined }, 403],
    ["another token", { [TOKEN_HEADER]: "0".repeat(32) }, 403],
    ["a form's text", { "content-type": "text/plain" }, 415],
    ["a form", { "content-type": "application/x-www-form-urlencoded" }, 415],
    ["nothing said of its type", { "content-type": undefined }, 415],
  ] as const)("%s", async (_, headers, status) => {
    expect((await post("text", TEXT, headers)).status).toBe(status);
  });

  it("with a body that is too long, has no length, or none of JSON", async () => {
    expect((await post("text", JSON.stringify({ text: "x".repeat(200_000) }))).status).toBe(413);
    expect((await post("text", "{")).body).toMatch(/^the body: not valid JSON/);
    expect((await post("text", "\ud800")).status).toBe(400);
    const head = `POST /api/ask/first/text HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n${TOKEN_HEADER}: ${token}\r\nContent-Type: ${JSON_TYPE}\r\n`;
    expect(await raw(`${head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`)).toMatch(/^HTTP\/1\.1 400 /);
    expect(await raw(`${head}\r\n`)).toMatch(/^HTTP\/1\.1 411 /);
    await isAlive();
  });

  it("by another method", async () => {
    for (const method of ["PUT", "DELETE", "PATCH", "OPTIONS"])
      expect([method, (await ask(page.port, "/api/ask/first/text", {}, method)).status]).toEqual([method, 405]);
    for (const path of [
      "/",
      "/api/ask",
      "/api/ask/first",
      "/api/ask/first/other",
      "/api/ask/second/text",
      "/api/runs/first/series",
    ])
      expect([path, (await post(path, "{}")).status]).toEqual([path, 404]);
  });
});

/** Questions that make no sense, one per kind of fault; none may be answered with 200 or 500. */
const edit = STEER.edits[0]!;
const NONSENSE: readonly (readonly [kind: string, body: string])[] = [
  ...["null", "[]", "1", '"text"', "{}", '{"text":1}', '{"text":null}', '{"text":["a"]}', '{"text":""}'],
  ...[
    '{"text":"a","latents":"1"}',
    '{"text":"a","latents":[-1]}',
    '{"text":"a","latents":[1.5]}',
    '{"text":"a","latents":[128]}',
  ],
  ...['{"text":"a","latents":[4294967295]}', '{"text":"a","__proto__":{}}', '{"text":"a","path":"/etc/passwd"}', "NaN"],
  ...[
    `{"text":"a","latents":[${"1,".repeat(99)}1]}`,
    "[".repeat(50_000),
    `{"a":`.repeat(9000),
    JSON.stringify({ text: "x".repeat(20_001) }),
  ],
  ...[JSON.stringify({ text: "word ".repeat(3000) }), JSON.stringify({ text: " \n\t " })],
].map((body) => ["text", body] as const);
const STEERS = [
  { ...STEER, text: 5 },
  { ...STEER, edits: "all" },
  { ...STEER, edits: Array.from({ length: 17 }, () => edit) },
  ...["1", null, -1, 0.5, 2 ** 40, 128].map((latent) => ({ ...STEER, edits: [{ ...edit, latent }] })),
  ...["Set", "toString", null, 1].map((kind) => ({ ...STEER, edits: [{ ...edit, kind }] })),
  ...[null, "1", true, 1e7, -1e7].map((value) => ({ ...STEER, edits: [{ ...edit, value }] })),
  ...[null, "some", -1, [-1], [0], [1.5], ["1"], [511], [512], [[1]], Array.from({ length: 513 }, () => 1)].map(
    (positions) => ({ ...STEER, edits: [{ ...edit, positions }] }),
  ),
  ...[null, [], { ...STEER.continuation, tokens: 65 }, { ...STEER.continuation, tokens: 1e9 }].map((continuation) => ({
    ...STEER,
    continuation,
  })),
  ...[
    { tokens: -1 },
    { tokens: 1.5 },
    { seed: -1 },
    { seed: 0.5 },
    { temperature: -1 },
    { temperature: 11 },
    { more: 1 },
  ].map((part) => ({ ...STEER, continuation: { ...STEER.continuation, ...part } })),
  { ...STEER, more: 1 },
].map((value) => ["steer", JSON.stringify(value)] as const);
/** What JSON.stringify does not write. */
const NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "0x10", "1_000", "'1'"].map(
  (value) => ["steer", JSON.stringify(STEER).replace('"value":4', `"value":${value}`)] as const,
);
const MARKUP = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "\u0000\u001b[2J\u202e",
  "</textarea><b>",
  "{{constructor.constructor('return process')()}}",
  "../../../../etc/passwd",
].map((text) => ["text", JSON.stringify({ text })] as const);

describe("a thousand hostile requests", () => {
  it("that make no sense are each refused in one line, and the page answers after them", async () => {
    for (const [kind, body] of [...NONSENSE, ...STEERS, ...NUMBERS]) {
      const { status, body: said } = await post(kind, body);
      expect([body.slice(0, 80), status, said.trim().split("\n").length]).toEqual([body.slice(0, 80), 400, 1]);
      expect(said).not.toMatch(/undefined|\[object|zod|Error:|at .*:\d+/);
    }
    await isAlive();
  });

  it("at once, of all kinds, are all answered, and nothing is written", async () => {
    const before = hashOf(join(folder, "runs"));
    const kinds = [...NONSENSE, ...STEERS, ...NUMBERS, ...MARKUP];
    const headers = [{}, { origin: "http://evil.test" }, { [TOKEN_HEADER]: "x" }, { "content-type": "text/plain" }, {}];
    const answers = await Promise.all(
      Array.from({ length: 1000 }, async (_, i) => {
        const [kind, body] = i % 7 === 0 ? (["text", TEXT] as const) : kinds[i % kinds.length]!;
        const given = headers[i % headers.length]!;
        const mayDo = Object.keys(given).length === 0;
        return { mayDo, isGood: i % 7 === 0, ...(await post(kind, body, given)) };
      }),
    );
    expect(answers.length).toBe(1000);
    for (const { mayDo, isGood, status, headers: said, body } of answers) {
      if (!mayDo) expect([403, 413, 415]).toContain(status);
      else if (isGood) expect([200, 503]).toContain(status);
      else expect([200, 400, 413, 503]).toContain(status);
      expect(said["content-type"]).toMatch(/^(application\/json|text\/plain); charset=utf-8$/);
      if (status === 503) expect(body).toMatch(/questions wait already/);
    }
    expect(answers.filter(({ status }) => status === 200).length).toBeGreaterThan(0);
    await isAlive();
    expect(hashOf(join(folder, "runs"))).toBe(before);
  });

  it("that are never finished, or whose senders go away, hold nobody up", async () => {
    const head = `POST /api/ask/first/text HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n${TOKEN_HEADER}: ${token}\r\nContent-Type: ${JSON_TYPE}\r\nContent-Length: 1000\r\n\r\n{"text":"`;
    const sockets = Array.from({ length: 200 }, () => connect(page.port, "127.0.0.1"));
    for (const socket of sockets) socket.on("error", () => undefined).write(head);
    await isAlive();
    for (const socket of sockets) socket.destroy();
    const gone = Array.from({ length: 40 }, () => {
      const socket = connect(page.port, "127.0.0.1");
      socket.on("error", () => undefined);
      socket.write(`${head.replace("Content-Length: 1000", `Content-Length: ${TEXT.length}`).slice(0, -9)}${TEXT}`);
      return socket;
    });
    for (const socket of gone) socket.destroy();
    await expect.poll(async () => (await post("text", TEXT)).status).toBe(200);
  });
});

describe("the model's process", () => {
  it("may be ended at any time: the next question starts another", async () => {
    await isAlive();
    const { pid } = model;
    process.kill(pid!, "SIGKILL");
    await expect.poll(async () => (await post("text", TEXT)).status).toBe(200);
    expect(model.pid).not.toBe(pid);
  });

  it("is ended where an answer takes too long, and others wait no longer than the queue is", async () => {
    const slow = await AskServer.start({ model: MODEL, threads: 1 }, { answerMs: 1, waiting: 2 });
    const run = join(folder, "runs", "first");
    const question = { ...STEER, continuation: { ...STEER.continuation, tokens: 64 } };
    const outcomes = await Promise.all(Array.from({ length: 6 }, () => slow.ask(run, "steer", question)));
    const said = outcomes.map((outcome) => ("text" in outcome ? outcome.text : "answered"));
    expect(said.slice(0, 3)).toEqual(Array.from({ length: 3 }, () => "took longer than 0 s and was given up"));
    expect(said.slice(3)).toEqual(Array.from({ length: 3 }, () => "2 questions wait already: ask again"));
    await slow[Symbol.asyncDispose]();
  });

  it("is ended where it took too much memory, after its answer", async () => {
    const hungry = await AskServer.start({ model: MODEL, threads: 1 }, { growth: -(2 ** 50) });
    const run = join(folder, "runs", "first");
    const { pid } = hungry;
    expect(await hungry.ask(run, "text", { text: "One." })).toHaveProperty("answer");
    expect(await hungry.ask(run, "text", { text: "Two." })).toHaveProperty("answer");
    expect(hungry.pid).not.toBe(pid);
    await hungry[Symbol.asyncDispose]();
  });

  it("takes a question whose asker went away out of the queue", async () => {
    const run = join(folder, "runs", "first");
    const gone = new AbortController();
    const first = model.ask(run, "text", { text: "One." });
    const second = model.ask(run, "text", { text: "Two." }, gone.signal);
    gone.abort();
    expect(await second).toEqual({ status: 499, text: "nobody waits for the answer" });
    expect(await first).toHaveProperty("answer");
  });

  it("refuses a model or an autoencoder that it cannot use, in words", async () => {
    await expect(AskServer.start({ model: join(folder, "none") })).rejects.toThrow("there is no such file");
    await expect(AskServer.start({ model: MODEL, context: 1000 })).rejects.toThrow(
      "--context must be a whole number from 2 to 256, but is 1000",
    );
    const other = await AskServer.start({ model: MODEL, tensor: "no-such-tensor" });
    const outcome = await other.ask(join(folder, "runs", "first"), "about", undefined);
    expect(outcome).toMatchObject({ status: 400, text: expect.stringContaining("no-such-tensor") });
    await other[Symbol.asyncDispose]();
  });
});

/** What the server answers to these bytes, until it closes the connection. */
function raw(text: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(page.port, "127.0.0.1");
    let answer = "";
    socket.on("data", (part) => {
      answer += part.toString();
    });
    socket.on("error", () => resolve(answer)).on("close", () => resolve(answer));
    socket.write(text);
  });
}
