/** The server over real connections: what it tells, and what it does not. */

import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { POLL_MS } from "../../test/support/limits.ts";
import { ask, hashOf, listen, standInPage, type Told, traversals } from "../../test/support/pages.ts";
import { appendLines, densityLine, linesOf, metricsLine, writeRun } from "../../test/support/run-folder.ts";
import { type Dashboard, serveDashboard } from "./server.ts";

const SECRET = "what nobody outside may see";
let folder: string;
let served: string;
let page: Dashboard;
let port: number;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "saetta-page-"));
  served = join(folder, "runs");
  writeRun(join(served, "run"), linesOf(1, 50), { "<script>alert(1)</script>": "<img src=x onerror=alert(2)>" });
  appendLines(join(served, "run"), "density.jsonl", [densityLine(20), densityLine(40)]);
  writeRun(join(served, "long"), linesOf(1, 3000, 1));
  writeFileSync(join(served, "run", "sae.safetensors"), SECRET); // in a run folder, but not for the page
  writeFileSync(join(folder, "secret.txt"), SECRET);
  page = await serveDashboard({
    folders: [served],
    port: 0,
    assets: standInPage(join(folder, "page")),
    times: { look: 20, scan: 100 },
    patience: POLL_MS, // no connection that a test holds is given up
    features: (run, parts, query) =>
      Promise.resolve(parts[0] === "known" ? { run, parts, search: query.get("search") } : undefined),
  });
  port = page.port;
});
afterAll(async () => {
  await page.close();
  rmSync(folder, { recursive: true });
});

describe("an open page is told", () => {
  it("which runs there are, what the shown ones did, and whatever comes", async () => {
    const stream = listen(port, "run=run&points=100");
    try {
      const series = await stream.until(({ name }) => name === "series");
      expect(stream.told.map(({ name }) => name)).toEqual(["hello", "runs", "details", "series"]);
      expect(stream.told[1]).toMatchObject({
        data: { gone: [], runs: [{ id: "long" }, { id: "run", name: "run", step: 50, budget: 6400 }] },
      });
      expect(stream.told[2]).toMatchObject({
        data: { run: "run", density: [{ step: 20 }, { step: 40, latents: 64 }] },
      });
      expect(series).toMatchObject({ data: { run: "run", step: linesOf(1, 50).map(({ step }) => step) } });

      appendLines(join(served, "run"), "metrics.jsonl", linesOf(51, 60));
      appendLines(join(served, "run"), "density.jsonl", [densityLine(60)]);
      await stream.until((event) => event.name === "details" && event.data.density.length === 3);
      await stream.until((event) => event.name === "runs" && event.data.runs.some(({ step }) => step === 60));
      const steps = stream.told.flatMap((event) =>
        event.name === "series" || event.name === "append" ? event.data.step : [],
      );
      expect(steps.length).toBeGreaterThan(50);
      expect(steps.at(-1)).toBeGreaterThan(55);
      // A run that is resumed takes lines back: the page gets it anew.
      const before = stream.told.length;
      truncateSync(
        join(served, "run", "metrics.jsonl"),
        linesOf(1, 30)
          .map((line) => `${JSON.stringify(line)}\n`)
          .join("").length,
      );
      appendLines(join(served, "run"), "metrics.jsonl", linesOf(31, 50, 2));
      await stream.until(
        (event) => stream.told.indexOf(event) >= before && event.name === "series" && event.data.step.at(-1) === 50,
      );
      writeRun(join(served, "new"), linesOf(1, 2));
      await stream.until((event) => event.name === "runs" && event.data.runs.some(({ id }) => id === "new"));
      rmSync(join(served, "new"), { recursive: true });
      await stream.until((event) => event.name === "runs" && event.data.gone.includes("new"));
    } finally {
      stream.close();
    }
  });

  it("no more points than it asked for, though lines come one by one", async () => {
    const stream = listen(port, "run=long&points=50");
    const of = (names: string[]) =>
      stream.told.flatMap((event): Extract<Told, { name: "series" | "append" }>[] =>
        (event.name === "series" || event.name === "append") && names.includes(event.name) ? [event] : [],
      );
    try {
      await stream.until(({ name }) => name === "series");
      for (let step = 3001; of(["series"]).length < 2; step++) {
        appendLines(join(served, "long"), "metrics.jsonl", [metricsLine(step, 1)]);
        await new Promise((resolve) => {
          setTimeout(resolve, 5);
        });
      }
      for (const { data } of of(["series"])) expect(data.step.length).toBeLessThanOrEqual(50);
      const [first, second] = of(["series"]);
      const between = stream.told
        .slice(stream.told.indexOf(first!) + 1, stream.told.indexOf(second!))
        .filter(({ name }) => name === "append");
      expect(
        between.reduce((sum, event) => sum + (event.name === "append" ? event.data.step.length : 0), 0),
      ).toBeLessThanOrEqual(60);
      const { status, body } = await ask(port, "/api/runs/long/series?from=100&to=110&points=50");
      expect([status, (JSON.parse(body) as { step: number[] }).step]).toEqual([
        200,
        Array.from({ length: 13 }, (_, i) => 99 + i),
      ]);
    } finally {
      stream.close();
    }
  });

  it("by HEAD, what GET would begin with", async () => {
    for (const path of ["/", "/assets/index-abc.js", "/api/runs/run/series", "/features/run", "/api/events"]) {
      const { status, body } = await ask(port, path, {}, "HEAD");
      expect([path, status, body]).toEqual([path, 200, ""]);
    }
  });

  it("the features of a run, where there are any", async () => {
    expect((await ask(port, "/features/run")).body).toContain("stand-in");
    expect((await ask(port, "/features/none")).status).toBe(404);
    const { body } = await ask(port, "/api/features/run/known/a%2Fb?search=c%20d");
    expect(JSON.parse(body)).toEqual({ run: join(served, "run"), parts: ["known", "a/b"], search: "c d" });
    expect((await ask(port, "/api/features/run/other")).status).toBe(404);
    expect((await ask(port, "/api/features/none/known")).status).toBe(404);
  });
});

describe("nobody else is told anything", () => {
  it("whatever way an address is written", async () => {
    const paths = [...traversals(join(folder, "secret.txt")), ...traversals("/etc/passwd")];
    expect(paths.length).toBeGreaterThan(1000);
    const answers = await Promise.all(paths.map(async (path) => ({ path, ...(await ask(port, path)) })));
    expect(answers.filter(({ body }) => body.includes(SECRET) || body.includes("root:"))).toEqual([]);
    const served200 = answers.filter(({ status }) => status === 200).map(({ path }) => path);
    // The page itself, with a question after it that nobody reads.
    expect(served200.filter((path) => !path.startsWith("/?"))).toEqual([]);
  });

  it("under another name, which a stranger may have pointed here", async () => {
    const own = [
      "localhost",
      "LOCALHOST:80",
      "127.0.0.1:1",
      `[::1]:${port}`,
      "192.168.7.7",
      hostname(),
      `${hostname()}:${port}`,
    ];
    for (const host of own) expect([host, (await ask(port, "/", { Host: host })).status]).toEqual([host, 200]);
    const others = [
      "evil.test",
      `evil.test:${port}`,
      "localhost.evil.test",
      "127.0.0.1.evil.test",
      "evil.test@localhost",
      "localhost#",
      "127.0.0.1:80:80",
      "[::1",
      "[evil]",
    ];
    for (const host of others) {
      for (const path of ["/", "/api/events", "/assets/index-abc.js", "/api/runs/run/series"]) {
        const { status, body } = await ask(port, path, { Host: host });
        expect([host, path, status]).toEqual([host, path, 403]);
        expect(body).not.toContain("run");
      }
    }
  });

  it("under no name at all", async () => {
    expect(await raw("GET / HTTP/1.1\r\nHost:\r\n\r\n")).toMatch(/^HTTP\/1\.1 403 /);
    expect(await raw("GET / HTTP/1.0\r\n\r\n")).toMatch(/^HTTP\/1\.1 403 /);
  });

  it("for another page", async () => {
    const ours = `http://127.0.0.1:${port}`;
    expect((await ask(port, "/api/runs/run/series", { Origin: ours })).status).toBe(200);
    for (const origin of [
      "http://evil.test",
      "null",
      `https://127.0.0.1:${port}`,
      `http://127.0.0.1:${port + 1}`,
      `http://localhost:${port}`,
      "file://",
    ]) {
      expect([origin, (await ask(port, "/api/runs/run/series", { Origin: origin })).status]).toEqual([origin, 403]);
    }
    const from = (site: string, mode: string, dest: string) => ({
      "Sec-Fetch-Site": site,
      "Sec-Fetch-Mode": mode,
      "Sec-Fetch-Dest": dest,
    });
    for (const headers of [
      from("cross-site", "no-cors", "script"),
      from("same-site", "cors", "empty"),
      from("cross-site", "navigate", "iframe"),
    ]) {
      expect((await ask(port, "/api/runs/run/series", headers)).status).toBe(403);
    }
    for (const headers of [
      from("cross-site", "navigate", "document"),
      from("none", "navigate", "document"),
      from("same-origin", "cors", "empty"),
    ]) {
      expect((await ask(port, "/", headers)).status).toBe(200);
    }
  });

  it("by another method, or with a body", async () => {
    for (const method of ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"]) {
      const { status, headers } = await ask(port, "/", {}, method);
      expect([method, status, headers.allow]).toEqual([method, 405, "GET, HEAD"]);
    }
    expect((await ask(port, "/", { "Content-Length": "0" })).status).toBe(200);
    expect(await raw("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")).toMatch(
      /^HTTP\/1\.1 400 /,
    );
    expect(await raw("GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")).toMatch(
      /^HTTP\/1\.1 400 /,
    );
    expect(await raw("GET http://evil.test/ HTTP/1.1\r\nHost: localhost\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 /);
    expect(await raw(`GET / HTTP/1.1\r\nHost: localhost\r\nX: ${"y".repeat(20_000)}\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 4\d\d /,
    );
    expect(await raw("nonsense\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 /);
  });

  it("and every answer says what its page may do", async () => {
    for (const path of ["/", "/nothing", "/api/runs/run/series", "/assets/index-abc.js"]) {
      const { headers } = await ask(port, path);
      const policy = String(headers["content-security-policy"]);
      expect(policy).toMatch(/^default-src 'none'; script-src 'self'; /);
      expect(policy).not.toMatch(/unsafe|\*|http|data:/);
      expect(policy).toContain("frame-ancestors 'none'");
      expect(headers).toMatchObject({
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "same-origin",
      });
      expect(headers["access-control-allow-origin"]).toBeUndefined();
    }
  });

  it("though a thousand connections hold the line", async () => {
    const before = hashOf(served);
    const sockets: Socket[] = [];
    for (let i = 0; i < 1000; i++) {
      const socket = connect(port, "127.0.0.1");
      socket.on("error", () => undefined);
      if (i % 2 === 0) socket.write("GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "); // and never ends
      sockets.push(socket);
    }
    await Promise.all(
      sockets.map((socket) => new Promise((resolve) => socket.once("connect", resolve).once("close", resolve))),
    );
    const answers = await Promise.all(Array.from({ length: 20 }, () => ask(port, "/")));
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
    // Most of those that the server keeps are the slow ones still: nobody waited until they were
    // given up.
    const open = sockets.filter(({ closed }) => !closed).length;
    expect(open).toBeGreaterThan(200);
    expect(open).toBeLessThan(300);
    // Pages that stay open are bounded, too.
    const streams = Array.from({ length: 80 }, () => listen(port, "run=run"));
    const statuses = await Promise.all(streams.map(({ status }) => status));
    expect([200, 503].map((status) => statuses.filter((each) => each === status).length)).toEqual([64, 16]);
    expect((await ask(port, "/")).status).toBe(200);
    for (const stream of streams) stream.close();
    for (const socket of sockets) socket.destroy();
    expect(hashOf(served)).toBe(before);
  });

  it("and names of metrics and options stay what they are: text in JSON", async () => {
    appendLines(join(served, "run"), "metrics.jsonl", [
      metricsLine(51, 2, { "<script>alert(3)</script>": 4, "\u2028</script>": 5 }),
    ]);
    const names = async () => {
      const { body, headers } = await ask(port, "/api/runs/run/series");
      expect(headers["content-type"]).toBe("application/json; charset=utf-8");
      return (JSON.parse(body) as { metrics: { name: string }[] }).metrics.map(({ name }) => name);
    };
    await expect.poll(names).toEqual(expect.arrayContaining(["<script>alert(3)</script>", "\u2028</script>"]));
  });
});

describe("ports and hosts", () => {
  it("a port that is taken is an error, or the next one where nobody asked for one", async () => {
    const options = { folders: [served], assets: join(folder, "page") };
    await expect(serveDashboard({ ...options, port })).rejects.toThrow(
      `127.0.0.1:${port}: the port is taken; choose another --port`,
    );
    await expect(serveDashboard({ ...options, host: "192.0.2.1", port: 0 })).rejects.toThrow(
      "192.0.2.1: is no address of this machine",
    );
    const [a, b] = [await serveDashboard(options), await serveDashboard(options)];
    expect(b.port).toBeGreaterThan(a.port);
    await Promise.all([a.close(), b.close()]);
  });

  it("a page that was not built says so", async () => {
    await expect(serveDashboard({ folders: [served], assets: join(folder, "none") })).rejects.toThrow(
      "the page is not built; npm run build",
    );
  });
});

/** What the server answers to these bytes, until it closes the connection. */
function raw(text: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    let answer = "";
    socket.on("data", (part) => {
      answer += part.toString();
    });
    socket.on("error", () => resolve(answer)).on("close", () => resolve(answer));
    socket.write(text);
  });
}
