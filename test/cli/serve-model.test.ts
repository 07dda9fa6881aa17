/** `saetta serve --model` as people call it. */

import { cpSync, readdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MODEL, TENSOR, trainOnExample } from "../support/asked.ts";
import { ask } from "../support/pages.ts";
import { scratch } from "../support/scratch.ts";
import { saetta, start } from "./saetta.ts";

let folder = "";
beforeAll(async () => {
  folder = await scratch("serve-model");
  const run = await trainOnExample(folder);
  const [checkpoint = ""] = readdirSync(join(run, "checkpoints"));
  cpSync(join(run, "checkpoints", checkpoint), join(folder, "an autoencoder"), { recursive: true });
});
afterAll(() => rm(folder, { recursive: true }));

describe("saetta serve --model", () => {
  it("answers about runs, and about autoencoders that are of none", async () => {
    const words = ["serve", "runs", "an autoencoder", "--model", MODEL, "--threads", "1", "--port", "0"];
    const serving = start(folder, ...words);
    let out = "";
    serving.child.stdout?.on("data", (part: string) => {
      out += part;
    });
    await serving.says("http://127.0.0.1:");
    const port = Number(/:(\d+)\//.exec(out)?.[1]);
    expect(JSON.parse((await ask(port, "/api/ask")).body)).toEqual({ model: MODEL, others: ["an~autoencoder"] });
    for (const id of ["first", "an~autoencoder"]) {
      const { status, body } = await ask(port, `/api/ask/${id}`);
      expect([id, status]).toEqual([id, 200]);
      expect(JSON.parse(body)).toMatchObject({ latents: 128, tensor: TENSOR });
      expect((await ask(port, `/ask/${id}`)).status).toBe(200);
    }
    serving.child.kill("SIGTERM");
    const ended = await serving.ended;
    expect([ended.code, ended.err]).toEqual([143, "\nsaetta: SIGTERM: closing the page\n"]);
  });

  it.each([
    [["--tensor", TENSOR], 2, "saetta: --tensor is of the model that reads your text; name it with --model"],
    [["--model", "nowhere"], 1, "nowhere: there is no such file"],
    [["--model", MODEL, "--context", "1"], 2, "--context must be a whole number"],
    [["--model", MODEL, "--context", "9999"], 2, "--context must be a whole number from 2 to 256, but is 9999"],
  ])("%j is refused", async (words, code, message) => {
    const ended = await saetta(folder, "serve", "runs", "--port", "0", ...words);
    expect(ended.err).toContain(message);
    expect([ended.code, ended.out]).toEqual([code, ""]);
  });
});
