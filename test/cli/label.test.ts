/** `saetta label`, and the script that asks a language model. */

import { execFile } from "node:child_process";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Interpretation } from "../../src/explorer/shared/interpretation.ts";
import { plant } from "../support/planted.ts";
import { PYTHON } from "../support/python.ts";
import { linesOf, writeRun } from "../support/run-folder.ts";
import { saetta } from "./saetta.ts";

const PACKAGE = fileURLToPath(new URL("../../python", import.meta.url));
let folder = "";
let run = "";
let acts = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-label-"));
  const planted = await plant(folder, 40);
  acts = planted.acts;
  run = writeRun(join(folder, "run"), linesOf(1, 20));
  cpSync(planted.sae, join(run, "checkpoints", "step-00000020"), { recursive: true });
  const made = await saetta(folder, "report", CHECKPOINT, "--data", acts, "--engine", "reference", "--out", "a.html");
  expect([made.code, made.err]).toEqual([0, ""]);
});
afterAll(() => rm(folder, { recursive: true }));

const CHECKPOINT = "run/checkpoints/step-00000020";

describe("saetta label", () => {
  it("sets and lists names, which eval, report, inspect and export show", async () => {
    const set = await saetta(folder, "label", "set", CHECKPOINT, "20", "--name", "a <b>name</b>", "--note", "why");
    expect(set).toEqual({
      code: 0,
      err: "",
      out: "labelled     latent 20 in run/labels.jsonl\n".replace("run/", `${run}/`),
    });
    const list = await saetta(folder, "label", "list", CHECKPOINT);
    expect(list.out).toBe("20  a <b>name</b> | why\n");
    expect(JSON.parse((await saetta(folder, "label", "list", CHECKPOINT, "--json")).out)).toEqual({
      latents: [{ latent: 20, name: "a <b>name</b>", note: "why" }],
    });
    expect((await saetta(folder, "inspect", "run")).out).toMatch(/labels +1\n/);
    const features = ["eval", CHECKPOINT, acts, "--features", "96", "--engine", "reference", "--json"];
    const { features: shown } = JSON.parse((await saetta(folder, ...features)).out) as {
      features: { latent: number; label: unknown }[];
    };
    expect(shown.filter(({ label }) => label !== null)).toMatchObject(
      shown.some(({ latent }) => latent === 20) ? [{ latent: 20, label: { name: "a <b>name</b>", note: "why" } }] : [],
    );
    const exported = await saetta(folder, "export", CHECKPOINT, "--format", "saelens", "--out", "exported", "--verify");
    expect([exported.code, exported.err]).toEqual([0, ""]);
    expect(await readdir(join(folder, "exported"))).toContain("labels.jsonl");
    const imported = await saetta(folder, "import", "exported", "--out", "imported");
    expect(imported.code).toBe(0);
    expect((await saetta(folder, "label", "list", "imported")).out).toBe("20  a <b>name</b> | why\n");
    const taken = await saetta(folder, "label", "set", "imported", "20", "--name", "", "--note", "");
    expect(taken.code).toBe(0);
    expect((await saetta(folder, "label", "list", "imported")).out).toBe("no latent has a name or a note\n");
  });

  it("merges the labels of another copy, once", async () => {
    await mkdir(join(folder, "copy"));
    cpSync(join(folder, "exported"), join(folder, "copy"), { recursive: true });
    await saetta(folder, "label", "set", "copy", "5", "--name", "five");
    const first = await saetta(folder, "label", "import", CHECKPOINT, "copy/labels.jsonl");
    expect(first.out).toBe(`imported     1 change of 1 latent into ${join(run, "labels.jsonl")}\n`);
    const second = await saetta(folder, "label", "import", CHECKPOINT, "copy/labels.jsonl");
    expect(second.out).toMatch(/^imported {5}0 changes of 0 latents/);
    expect((await saetta(folder, "label", "list", CHECKPOINT)).out).toBe(" 5  five\n20  a <b>name</b> | why\n");
  });

  it("has a language model name latents, and scores the names by its answers", async () => {
    const out = await saetta(
      folder,
      ...["label", "export", CHECKPOINT, "--data", acts, "--only", "20,21,30", "--engine", "reference"],
      ...["--out", "passages.json"],
    );
    expect([out.code, out.err]).toEqual([0, ""]);
    const passages = JSON.parse(readFileSync(join(folder, "passages.json"), "utf8")) as Interpretation;
    expect(passages.latents.map(({ latent }) => latent)).toEqual([20, 21, 30]);
    const tests = passages.latents[1]!.detection;
    expect(tests.filter(({ activating }) => activating).length * 2).toBe(tests.length);
    // An imitation that knows the truth for detection, and says yes to everything in fuzzing.
    const truth = new Map(
      passages.latents.flatMap(({ detection }) => detection.map((item) => [item.tokens.join(""), item.activating])),
    );
    const asked: string[] = [];
    let busy = 2;
    const server = createServer((request, response) => {
      let body = "";
      request.setEncoding("utf8").on("data", (part: string) => {
        body += part;
      });
      request.on("end", () => {
        if (busy-- > 0) {
          response.writeHead(429).end();
          return;
        }
        asked.push(`${request.url} ${request.headers.authorization}`);
        const { messages } = JSON.parse(body) as { messages: { content: string }[] };
        const [{ content: system }, { content: user }] = messages as [{ content: string }, { content: string }];
        const texts = user
          .split(/^Passage \d+: /m)
          .slice(1)
          .map((text) => text.replace(/\n$/, ""));
        const content = system.includes("[NAME]")
          ? "I see.\n[NAME]: words of one kind"
          : system.includes("<<")
            ? `[${texts.map(() => 1).join(", ")}]`
            : `Answer: [${texts.map((text) => (truth.get(text) === true ? 1 : 0)).join(",")}]`;
        response.writeHead(200, { "content-type": "application/json" });
        response.end(JSON.stringify({ choices: [{ message: { content } }] }));
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`;
    const argv = ["-m", "saetta.interpret", "passages.json", "--out", "answers.json", "--url", url, "--model", "m"];
    const env = { ...process.env, PYTHONPATH: PACKAGE, OPENAI_API_KEY: "key", SAETTA_INTERPRET_WAIT: "0" };
    await promisify(execFile)(PYTHON, argv, { cwd: folder, env });
    expect(new Set(asked)).toEqual(new Set(["/v1/chat/completions Bearer key"]));
    const before = asked.length;
    await promisify(execFile)(PYTHON, argv, { cwd: folder, env }); // all is there already
    server.close();
    expect(asked.length).toBe(before);
    const imported = await saetta(folder, "label", "import", "answers.json");
    expect(imported.out).toBe(`imported     3 changes of 3 latents into ${join(run, "labels.jsonl")}\n`);
    const { latents } = JSON.parse((await saetta(folder, "label", "list", CHECKPOINT, "--json")).out) as {
      latents: { latent: number; name: string; scores?: Record<string, unknown> }[];
    };
    // Latent 20 has a name already, which stays.
    expect(latents.map(({ latent, name }) => [latent, name])).toEqual([
      [5, "five"],
      [20, "a <b>name</b>"],
      [21, "words of one kind"],
      [30, "words of one kind"],
    ]);
    for (const { scores } of latents.slice(1))
      expect(scores).toMatchObject({
        detection: { accuracy: 1, precision: 1, recall: 1, f1: 1 },
        fuzzing: { accuracy: 0.5, precision: 0.5, recall: 1 },
      });
  });

  it("refuses in one line what cannot be", async () => {
    writeFileSync(join(folder, "no.json"), '{"a":1}');
    writeFileSync(join(folder, "far.jsonl"), '{"latent":96,"at":"2026-01-01T00:00:00.000Z","name":"x"}\n');
    const cases: readonly (readonly [string[], number, string])[] = [
      [["set", CHECKPOINT, "96", "--name", "x"], 2, "latent must be a whole number from 0 to 95, but is 96"],
      [["set", CHECKPOINT, "1"], 2, "label set needs a latent and a name or note"],
      [["list", CHECKPOINT, "1"], 2, 'label list takes no "1"'],
      [["listen", CHECKPOINT], 2, 'the action must be list, set, export or import, but is "listen"'],
      [["export", CHECKPOINT], 2, "label export needs --out FILE; name the JSON file to write"],
      [["export", CHECKPOINT, "--out", "no.json"], 1, "no.json: exists already"],
      [["export", "exported", "--out", "x.json"], 1, "exported: has no features yet; make them with saetta report"],
      [["import", CHECKPOINT, "no.json"], 1, "no.json: is no file of saetta label export"],
      [["import", CHECKPOINT, "none.json"], 1, "none.json: the file is missing"],
      [["import", CHECKPOINT, "far.jsonl"], 2, "latent must be a whole number from 0 to 95, but is 96"],
      [["set", "hf://org/repo", "1", "--name", "x"], 2, "hf://org/repo: labels are kept next to an autoencoder"],
    ];
    for (const [words, code, message] of cases) {
      const ended = await saetta(folder, "label", ...words);
      expect([words, ended.code, ended.err.trimEnd().split("\n").length]).toEqual([words, code, 1]);
      expect(ended.err).toContain(message);
    }
  });
});
