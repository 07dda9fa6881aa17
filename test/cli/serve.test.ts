/** `saetta serve` and `saetta train --serve` as people call them. */

import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeActivations } from "../support/activations.ts";
import { learnableRows } from "../support/memory-source.ts";
import { ask, listen } from "../support/pages.ts";
import { linesOf, writeRun } from "../support/run-folder.ts";
import { saetta, start } from "./saetta.ts";

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "saetta-serve-"));
  writeRun(join(folder, "runs", "a"), linesOf(1, 20));
  await writeActivations(join(folder, "acts.h5"), learnableRows(640, 8, 12), [32, 20, 8]);
});
afterAll(() => rmSync(folder, { recursive: true }));

async function listening(): Promise<{ readonly port: number; close(): Promise<void> }> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { readonly port: number };
  return { port, close: () => new Promise((resolve) => server.close(() => resolve())) };
}

async function freePort(): Promise<number> {
  const { port, close } = await listening();
  await close();
  return port;
}

const TRAIN = "train acts.h5 --engine reference --latents 24 --k 3 --auxk 6 --batch 32".split(" ");

describe("saetta serve", () => {
  it("prints its address, shows runs/ and ends in good order", async () => {
    const serving = start(folder, "serve", "--port", "0");
    await serving.says("http://127.0.0.1:");
    serving.child.kill("SIGTERM");
    const { code, out, err } = await serving.ended;
    expect([code, err]).toEqual([143, "\nsaetta: SIGTERM: closing the page\n"]);
    expect(out).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/\n$/);
  });

  it("with a host says that there is no password", async () => {
    const serving = start(folder, "serve", "runs/a", "--port", "0", "--host", "127.0.0.1");
    await serving.says("there is no password");
    serving.child.kill("SIGINT");
    expect((await serving.ended).code).toBe(130);
  });

  it.each([
    [["serve", "nowhere"], 1, "saetta: nowhere: no such folder; name run folders, or a folder of them"],
    [["serve", "acts.h5"], 1, "saetta: acts.h5: not a folder; name run folders, or a folder of them"],
    [["serve", "--port", "70000"], 2, 'saetta: --port must be a whole number from 0 to 65535, but is "70000"'],
    [["serve", "--port", "x"], 2, "saetta: --port must be a whole number"],
    [[...TRAIN, "--port", "7000"], 2, "saetta: --port is that of the page, which --serve asks for; add --serve"],
    [
      ["resume", "runs/a", "--port", "7000"],
      2,
      "saetta: --port is that of the page, which --serve asks for; add --serve",
    ],
  ])("%j is refused", async (argv, code, message) => {
    const ended = await saetta(folder, ...argv);
    expect(ended.err).toContain(message);
    expect(ended.code).toBe(code);
    expect(readdirSync(folder).toSorted()).toEqual(["acts.h5", "runs"]);
  });
});

describe("saetta train --serve", () => {
  it("shows the run while it trains, and no longer", async () => {
    const port = await freePort();
    const training = start(
      folder,
      ...TRAIN,
      "--tokens",
      "10M",
      "--log-every",
      "10",
      "--out",
      "served",
      "--serve",
      "--port",
      String(port),
      "--json",
    );
    await training.says(`the run is shown at http://127.0.0.1:${port}/`);
    const stream = listen(port, "run=served");
    await stream.until(({ name }) => name === "append");
    stream.close();
    training.child.kill("SIGTERM");
    const { code, out, err } = await training.ended;
    expect(code).toBe(143);
    expect(JSON.parse(out)).toMatchObject({ run: "served", reason: "stopped" }); // and nothing else on stdout
    expect(err).toContain("saetta serve served shows the run again");
    await expect(ask(port, "/")).rejects.toThrow("ECONNREFUSED");
  });

  it("trains without the page where the port is taken", async () => {
    const { port, close } = await listening();
    const { code, err } = await saetta(folder, ...TRAIN, "--out", "pageless", "--serve", "--port", String(port));
    await close();
    expect(code).toBe(0);
    expect(err).toContain(
      `saetta: note: there is no page: 127.0.0.1:${port}: the port is taken; choose another --port`,
    );
    expect(existsSync(join(folder, "pageless", "checkpoints"))).toBe(true);
  });
});
