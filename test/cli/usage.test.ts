import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { COMMANDS, saetta } from "./saetta.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-usage-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

describe("help", () => {
  it("of saetta lists the commands, with an example", async () => {
    const [{ code, out, err }, versioned] = await Promise.all([saetta(folder, "--help"), saetta(folder, "--version")]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    for (const command of COMMANDS) expect(out).toMatch(new RegExp(`^  ${command} .*\\w`, "m"));
    expect(out).toContain("Example:");
    expect(versioned).toEqual({ code: 0, out: `${version}\n`, err: "" });
  });

  it.each(COMMANDS)("of %s says what it takes, with an example", async (command) => {
    const { code, out, err } = await saetta(folder, command, "--help");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toContain(`Usage: saetta ${command}`);
    expect(out).toMatch(new RegExp(`\\nExamples?:\\n  .*saetta ${command}`));
    for (const line of out.split("\n").filter((each) => !each.includes("saetta ")))
      expect(line.length).toBeLessThanOrEqual(80);
    expect(out).not.toMatch(/undefined|\[object/);
  });

  it("of train has every flag once, under headings; that of resume only what may be changed", async () => {
    const [train, resume] = await Promise.all([saetta(folder, "train", "--help"), saetta(folder, "resume", "--help")]);
    const headings = Array.from(train.out.matchAll(/^(\w+):$/gm), ([, heading]) => heading);
    expect(headings).toEqual(["Arguments", "Autoencoder", "Optimisation", "Data", "Run", "Examples"]);
    const flags = Array.from(train.out.matchAll(/^ {2}(--\S+)/gm), ([, flag]) => flag!);
    expect(flags).toEqual(expect.arrayContaining(["--latents", "--[no-]shuffle", "--out", "--config"]));
    expect(new Set(flags).size).toBe(flags.length);
    expect(resume.out).toContain("--tokens <N>");
    expect(resume.out).toContain("--dtype <auto|f32|bf16|fp16>");
    expect(resume.out).not.toMatch(/--latents|--seed|default:/);
  });

  it("is also had by saetta help train", async () => {
    const [asked, flag] = await Promise.all([saetta(folder, "help", "train"), saetta(folder, "train", "--help")]);
    expect(asked).toEqual(flag);
  });
});

describe("wrong usage exits 2 with one line on stderr", () => {
  it.each([
    [["trian"], "saetta: unknown command 'trian' (Did you mean train?); saetta --help tells more"],
    [
      ["train", "--latent", "3"],
      "saetta: unknown option '--latent' (Did you mean --latents?); saetta train --help tells more",
    ],
    [["--verbose", "train"], /^saetta: unknown option '--verbose'/],
    [["train"], "saetta: no data: name the files of activations; saetta train acts.h5"],
    [["resume"], "saetta: missing required argument 'run'; saetta resume --help tells more"],
    [["train", "--lr"], "saetta: option '--lr <auto|X>' argument missing; saetta train --help tells more"],
    [
      ["train", "a.h5", "--engine", "gpu"],
      'saetta: --engine must be auto, cpu, cuda or reference, but is "gpu"; did you mean cuda?',
    ],
    [["train", "a.h5", "--tokens", "many"], /^saetta: --tokens must be a whole number of at least 1/],
    [
      ["train", "a.h5", "--engine", "refernce"],
      'saetta: --engine must be auto, cpu, cuda or reference, but is "refernce"; did you mean reference?',
    ],
    [
      ["train", "a.h5", "--dtype", "f16"],
      /^saetta: --dtype must be auto, f32, bf16 or fp16, but is "f16"; did you mean \w+16\?$/,
    ],
    [
      ["train", "a.h5", "--mse-scale", "atuo"],
      'saetta: --mse-scale must be auto or a number above 0, but is "atuo"; did you mean auto?',
    ],
    [["eval", "a", "--weights", "raaw"], 'saetta: --weights must be ema or raw, but is "raaw"; did you mean raw?'],
    [
      ["export", "a", "--out", "b"],
      "saetta: required option '--format <format>' not specified; saetta export --help tells more",
    ],
    [
      ["export", "a", "--out", "b", "--format", "saelen"],
      'saetta: --format must be saelens, sparsify, openai, dictionary_learning or circuit_tracer, but is "saelen"; did you mean saelens?',
    ],
    [["import", "a"], "saetta: required option '--out <dir>' not specified; saetta import --help tells more"],
    [["completion", "tcsh"], 'saetta: the shell must be bash, zsh or fish, but is "tcsh"'],
    [
      ["train", "a.h5", "--batch-size", "3"],
      "saetta: unknown option '--batch-size'; here it is --batch (it counts rows); saetta train --help tells more",
    ],
    [
      ["train", "a.h5", "--steps=3"],
      "saetta: unknown option '--steps'; here it is --tokens (it counts rows: steps x batch); saetta train --help tells more",
    ],
    [
      ["train", "a.h5", "--l1", "3"],
      "saetta: unknown option '--l1'; --k sets the sparsity of a TopK autoencoder; saetta train --help tells more",
    ],
    [
      ["train", "--activations", "a.h5"],
      "saetta: unknown option '--activations'; name the activations without a flag: saetta train acts.h5; saetta train --help tells more",
    ],
    [
      ["harvest", "--model", "m", "--hook_point", "x"],
      "saetta: unknown option '--hook_point'; here it is --tensor; saetta harvest --help tells more",
    ],
    [
      ["harvest", "--model", "m", "--text", "t", "--tensor", "a", "--tensor", "b", "--out", "x.h5"],
      "saetta: 2 tensors and 1 file were named with --tensor and --out; give an --out per --tensor, in the same order, or a folder as the only --out",
    ],
    [["doctor", "me"], /^saetta: too many arguments for 'doctor'/],
  ])("%j", async (argv, line) => {
    const { code, out, err } = await saetta(folder, ...argv);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(/^[^\n]+\n$/);
    expect(err.trimEnd()).toMatch(line);
  });

  it("and shows the help when nothing was said", async () => {
    const { code, out, err } = await saetta(folder);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toContain("Usage: saetta");
  });
});

it("doctor says which engines run here, in lines or as one JSON object", async () => {
  const lines = await saetta(folder, "doctor"); // compiles the kernels where nobody has so far
  const json = await saetta(folder, "doctor", "--json");
  expect({ code: lines.code, err: lines.err }).toEqual({ code: 0, err: "" });
  expect(lines.out).toContain(`saetta            ${version} on Node ${process.versions.node}`);
  expect(lines.out).toMatch(/^ok {2}engine reference {2}/m);
  expect(lines.out).toMatch(
    /^(ok {2}engine cpu .*\n(.*\n)*ok {2}self-test .*cpu agrees with reference: \de-\d+|no {2}engine cpu .*\n(.*\n)*)$/m,
  );
  // Where the engine runs, the line before says what in, this one what else there is.
  if (/^ok {2}engine cpu/m.test(lines.out)) {
    expect(lines.out).toMatch(
      /^ok {2}engine cpu {8}cpu: .+, \d+ threads?, .+\nok {2}cpu paths {9}portable(, [a-z0-9_]+)*$/m,
    );
  }
  const { sound, checks } = JSON.parse(json.out) as { sound: boolean; checks: { name: string }[] };
  expect(sound).toBe(true);
  expect(checks.map(({ name }) => name)).toEqual(
    expect.arrayContaining(["saetta", "engine reference", "engine cpu", "harvest"]),
  );
});
