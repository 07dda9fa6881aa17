import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/checkpoint/load.ts";
import { configFromJson } from "../../src/config.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { loadSae } from "../../src/inference/sae.ts";
import { parseDescription } from "../../src/sae/description.ts";
import { UsageError } from "../../src/util/errors.ts";
import { readJsonFile, readTextFile } from "../../src/util/json.ts";
import { json as formats, signed } from "../fuzz/formats/json.ts";
import { sae as saeFormats } from "../fuzz/formats/sae.ts";
import { place, refusal } from "./attack.ts";

const CFG = { d_in: 3, num_latents: 8, k: 2 };
const cfg = (parts: Readonly<Record<string, unknown>>): string => JSON.stringify({ ...CFG, ...parts });

describe("cfg.json is refused", () => {
  it.each<[string, string, string]>([
    [
      "with a width beyond all numbers",
      cfg({ d_in: 0 }).replace('"d_in":0', '"d_in":1e999'),
      'FILE: "d_in" must be a whole number of at least 1, but is null',
    ],
    [
      "with a width beyond safe integers",
      cfg({ d_in: 2 ** 53 }),
      'FILE: "d_in" must be a whole number of at least 1, but is 9007199254740992',
    ],
    [
      "with more weights than can be counted",
      cfg({ d_in: 2 ** 40, num_latents: 2 ** 31 }),
      "FILE: 2147483648 latents x 1099511627776 inputs are too many",
    ],
    [
      "with more latents than an index has",
      cfg({ num_latents: 2 ** 32 }),
      "FILE: 4294967296 latents x 3 inputs are too many",
    ],
    ["with a text for a number", cfg({ k: "2" }), 'FILE: "k" must be a whole number of at least 1, but is "2"'],
    [
      "with what it needs in a prototype",
      '{"__proto__":{"d_in":3,"num_latents":8,"k":2}}',
      'FILE: "d_in" must be a whole number of at least 1, but is missing',
    ],
    [
      "with two widths",
      '{"d_in":3,"d_in":4,"num_latents":8,"k":2}',
      'FILE: the name "d_in" stands twice in one JSON object (character 10)',
    ],
    [
      "with a name that a terminal would obey",
      cfg({ activation: "\u001b]0;mine\u0007" }),
      'FILE: activation "\\u001b]0;mine\\u0007" is not computed by Saetta (it computes "topk", "batchtopk", "matryoshka", "jumprelu")',
    ],
  ])("%s", async (_, text, line) => {
    const read = async (path: string) => parseDescription(await readJsonFile(path), path);
    expect(await refusal(place("cfg.json", text), read)).toBe(line);
  });

  it("when it claims more weights than the file has, before memory is taken for them", async () => {
    const [sample] = await saeFormats.find(({ name }) => name === "sae-cfg")!.samples();
    const path = place("cfg.json", cfg({ d_in: 2 ** 13, num_latents: 2 ** 16 }));
    writeFileSync(join(dirname(path), "sae.safetensors"), sample!.beside!["sae.safetensors"]!);
    const weights = join(dirname(path), "sae.safetensors");
    expect(await refusal(weights, () => loadSae(dirname(path), { engine: createReferenceEngine() }))).toBe(
      'FILE: tensor "encoder.weight" is [8, 3], but cfg.json says [65536, 8192]',
    );
  });
});

describe("config.json is wrong usage", () => {
  it.each([
    ["with a prototype", '{"__proto__":{"k":2}}', "c.json: unknown option __proto__"],
    [
      "nested without end",
      `{"k":${"[".repeat(50_000)}${"]".repeat(50_000)}}`,
      "c.json: JSON nested deeper than 64 (character 68)",
    ],
    ["with one option twice", '{"k":1,"k":2}', 'c.json: the name "k" stands twice in one JSON object (character 7)'],
    [
      "with a number beyond all",
      '{"k":1e999}',
      expect.stringMatching(/^c\.json: k must be .*but is Infinity$/) as string,
    ],
    [
      "with a very long word",
      `{"engine":"${"a".repeat(1_000_000)}"}`,
      expect.stringMatching(/^c\.json: engine must be auto, cpu, cuda or reference, but is "a{40}\.\.\."$/) as string,
    ],
  ])("%s", (_, text, line) => {
    const thrown = (() => {
      try {
        return configFromJson(text, "c.json");
      } catch (error) {
        return error;
      }
    })();
    expect(thrown).toBeInstanceOf(UsageError);
    expect((thrown as UsageError).message).toEqual(line);
  });
});

describe("a checkpoint is refused", () => {
  it.each<[string, (manifest: string) => string, string]>([
    [
      "that lists a file outside of it",
      (text) => text.replace('"cfg.json"', '"../cfg.json"'),
      'FILE: lists "../cfg.json", which is no plain file name',
    ],
    [
      "that lists an absolute path",
      (text) => text.replace('"cfg.json"', '"/etc/passwd"'),
      'FILE: lists "/etc/passwd", which is no plain file name',
    ],
    [
      "that lists its parent",
      (text) => text.replace('"cfg.json"', '".."'),
      'FILE: lists "..", which is no plain file name',
    ],
    [
      "that lists a name with a NUL",
      (text) => text.replace('"cfg.json"', '"cfg.json\\u0000"'),
      'FILE: lists "cfg.json\\u0000", which is no plain file name',
    ],
    [
      "that lists a name longer than names can be",
      (text) => text.replace('"cfg.json"', `"${"a".repeat(300)}"`),
      `FILE: lists "${"a".repeat(300)}", which is no plain file name`,
    ],
    [
      "that lists nothing",
      () => '{"format_version":1,"files":{}}',
      "FILE: does not list cfg.json, which the checkpoint must have",
    ],
    [
      "with a manifest of more than 1 MiB",
      (text) => text.replace(/\}$/, `${" ".repeat(1 << 20)}}`),
      expect.stringMatching(/^FILE: \d+ bytes, more than the 1048576 that a manifest may have$/) as string,
    ],
    [
      "with a size beyond safe integers",
      (text) => text.replace(/"size":\d+/, '"size":1e300'),
      'FILE: "size" must be a whole number of at least 0, but is 1e+300',
    ],
  ])("%s", async (_, change, line) => {
    const [sample] = await formats.find(({ name }) => name === "manifest")!.samples();
    const path = place("manifest.json", signed(Buffer.from(change(sample!.bytes.toString()))));
    for (const [name, content] of Object.entries(sample!.beside!)) writeFileSync(join(dirname(path), name), content);
    expect(await refusal(path, () => openCheckpoint(dirname(path)))).toEqual(line);
  });
});

describe("what is no file", () => {
  it("is not waited for and not read without end", async () => {
    const pipe = join(dirname(place("beside", "")), "pipe");
    execFileSync("mkfifo", [pipe]);
    for (const path of [pipe, dirname(pipe)]) {
      expect(await refusal(path, readTextFile)).toBe("FILE: not a file");
      expect(await refusal(path, (at) => readJsonFile(at))).toBe("FILE: not a file");
    }
    expect(await refusal("/dev/zero", readTextFile)).toBe("FILE: not a file");
  });
});
