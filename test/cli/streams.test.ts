/** What goes to stdout, to stderr and to a terminal. */

import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeActivations } from "../support/activations.ts";
import { CHILD_MS } from "../support/limits.ts";
import { learnableRows } from "../support/memory-source.ts";
import { CLI, saetta } from "./saetta.ts";

const SMALL = ["--engine", "reference", "--latents", "24", "--k", "3", "--auxk", "6", "--batch", "32"];
const MODEL = resolve("examples/brown-gpt");
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-streams-"));
  await writeActivations(join(folder, "acts.h5"), learnableRows(640, 8, 12), [32, 20, 8]);
  await writeFile(join(folder, "my.txt"), "The jury said it did not find the evidence. ".repeat(20));
  await saetta(folder, "train", "acts.h5", ...SMALL, "--out", "run");
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

describe("--json prints one JSON value on stdout and nothing else", () => {
  it.each([
    ["train", "acts.h5", ...SMALL, "--out", "other"],
    ["resume", "run", "--epochs", "2"],
    ["eval", "run", "--engine", "reference"],
    ["inspect", "acts.h5"],
    ["inspect", "run"],
    ["inspect", join(MODEL, "tokenizer.json")],
    ["doctor"],
    ["harvest", "--model", MODEL, "--list-tensors"],
    [
      "harvest",
      "--model",
      MODEL,
      "--text",
      "my.txt",
      "--tensor",
      "/transformer/h.3/Add_1_output_0",
      "--context",
      "64",
      "--out",
      "my.h5",
    ],
    [
      "bench",
      "--engine",
      "reference",
      "--latents",
      "16",
      "--width",
      "4",
      "--k",
      "2",
      "--auxk",
      "0",
      "--batch",
      "8",
      "--seconds",
      "0.1",
    ],
  ])("%s %s", async (...argv) => {
    const { code, out, err } = await saetta(folder, ...argv, "--json");
    expect({ code, err: err.replace(/^(harvest|train|eval|saetta: note): .*\n/gm, "") }).toEqual({ code: 0, err: "" });
    expect(typeof JSON.parse(out)).toBe("object");
  });
});

/** `script` of util-linux runs a command in a pseudo-terminal. */
const noTerminal = spawnSync("script", ["--version"]).status === 0 ? undefined : "no script(1) here";

describe.skipIf(noTerminal !== undefined)("on a terminal", () => {
  it.each([
    {},
    { NO_COLOR: "1" },
  ])("progress is one line that is rewritten, cut to the width, without colours (%j)", (env) => {
    const out = join(folder, `terminal-${Object.keys(env).length}`);
    const command = `stty cols 60; '${process.execPath}' '${CLI}' train acts.h5 ${SMALL.join(" ")} --epochs 100 --out ${out}`;
    const { stdout, status } = spawnSync("script", ["-qec", command, "/dev/null"], {
      cwd: folder,
      encoding: "utf8",
      input: "",
      timeout: CHILD_MS,
      env: { ...process.env, TERM: "xterm", ...env },
    });
    expect(status).toBe(0);
    const rewritten = stdout.split("\r\u001b[2K").slice(1);
    expect(rewritten[0]).toMatch(/^train: [\d,]+ of [\d,]+ rows, /);
    for (const line of rewritten.slice(0, -1)) expect(line).toMatch(/^[^\r\n]{1,59}$/);
    expect(rewritten.at(-1)).toMatch(/^loss\r\n/); // the last one is taken off
    expect(rewritten.at(-1)).toMatch(/\r\ndone {9}/);
    for (const sequence of stdout.split("\u001b").slice(1)) expect(sequence).toMatch(/^\[2K/); // nothing but erasing the line
  });
});
