import { mkdirSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { openSource } from "../../src/data/open.ts";
import { tinyModel, tinyTokenizer } from "../support/onnx.ts";
import { checkpointOf, checkpointsOf } from "../support/runs.ts";
import { saetta } from "./saetta.ts";

const SMALL = ["--engine", "reference", "--latents", "6", "--k", "2", "--auxk", "0", "--batch", "64"];
const MODEL = ["--model", "model", "--text", "text.txt", "--tensor", "doubled", "--context", "16"];
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-model-"));
  mkdirSync(join(folder, "model"));
  await writeFile(join(folder, "model", "model.onnx"), tinyModel(Array.from({ length: 10 }, (_, i) => Math.sin(i))));
  await writeFile(join(folder, "model", "tokenizer.json"), tinyTokenizer(["<s>", "a", "b", "c", "d"]));
  const letters = Array.from({ length: 6000 }, (_, i) => "abcd"[(i * i + (i >> 3)) % 4]);
  await writeFile(join(folder, "text.txt"), letters.join(" "));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

it("trains on a model without a file, over several epochs; a resumed run has the bits of a whole one", async () => {
  const whole = await saetta(folder, "train", ...MODEL, ...SMALL, "--epochs", "2", "--out", "whole");
  expect(whole.code).toBe(0);
  expect(whole.out).toContain("model, doubled, on text.txt: ");
  expect(whole.out).toMatch(/^result .*held-out FVU [\d.]+/m);
  const half = await saetta(
    folder,
    "train",
    ...MODEL,
    ...SMALL,
    "--epochs",
    "2",
    "--checkpoint-every",
    "50",
    "--out",
    "cut",
  );
  expect(half.code).toBe(0);
  const names = await checkpointsOf(join(folder, "cut"));
  await rm(join(folder, "cut", "checkpoints", names.at(-1)!), { recursive: true });
  const resumed = await saetta(folder, "resume", "cut");
  expect(resumed.code).toBe(0);
  const last = names.at(-1)!;
  expect(await checkpointOf(join(folder, "cut"), last)).toEqual(await checkpointOf(join(folder, "whole"), last));
  expect(JSON.parse(await readFile(join(folder, "cut", "config.json"), "utf8"))).toMatchObject({
    model: join(folder, "model"),
    tensor: "doubled",
  });
});

it("keeps every context once, as saetta harvest would write it", async () => {
  const kept = ["--keep-rows", "kept", "--epochs", "2", "--exclude-tokens", "none"];
  const { code, err } = await saetta(folder, "train", ...MODEL, ...SMALL, ...kept, "--out", "keeps");
  expect(code).toBe(0);
  expect(err).toMatch(/[\d,]+ rows kept in kept, in 1 file/);
  expect((await saetta(folder, "harvest", ...MODEL, "--out", "all.h5")).code).toBe(0);
  const contexts = async (path: string) => {
    const source = await openSource([join(folder, path)]);
    const [bytes, tokens] = [new Uint8Array(source.rows * 2 * source.dIn), await source.tokens!(0, source.rows)];
    await source.read(0, source.rows, bytes);
    await source.close();
    const [size, count] = [16 * 2 * source.dIn, source.rows / 16];
    const all = Array.from({ length: count }, (_, i) =>
      [
        ...tokens.subarray(16 * i, 16 * (i + 1)),
        Buffer.from(bytes.subarray(size * i, size * (i + 1))).toString("hex"),
      ].join(),
    );
    return { contexts: all.sort(), origin: source.origin };
  };
  const [found, harvested] = [await contexts("kept"), await contexts("all.h5")];
  expect(found.contexts).toEqual(harvested.contexts);
  expect(found.origin).toMatchObject({ tensor: "doubled", modelSha256: harvested.origin.modelSha256 });
  expect((await saetta(folder, "eval", "keeps", "--data", "kept")).code).toBe(0);
});

it.each([
  [["--model", "model"], "training on a model also needs --text, --tensor"],
  [[...MODEL, "acts.h5"], "files of activations and --model exclude each other"],
  [["--model", "model", "--text", "text.txt", "--tensor", "no"], "no"],
])("%#: says what is missing or too much", async (words, message) => {
  const { code, err } = await saetta(folder, "train", ...words, ...SMALL, "--out", "none");
  expect(err).toContain(message);
  expect(code).toBe(2);
});
