import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { FIXTURES } from "../interchange/fixtures.ts";
import { writeActivations } from "../support/activations.ts";
import { saetta } from "./saetta.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-exchange-"));
  const rows = Float32Array.from({ length: 400 * 12 }, (_, i) => Math.sin(i * i));
  await writeActivations(join(folder, "acts.h5"), rows, [400, 12]);
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

it("an autoencoder of another program is imported, trained on, measured and written for a third", async () => {
  const imported = await saetta(
    folder,
    "import",
    join(FIXTURES, "saelens"),
    "--out",
    "mine",
    "--verify",
    "--data",
    "acts.h5",
  );
  expect(imported).toMatchObject({ code: 0, err: "" });
  expect(imported.out).toMatch(
    /^written {6}mine: cfg\.json, sae\.safetensors\nformat {7}saelens\nautoencoder {2}40 latents, 12 inputs, topk, k = 4\nverified {5}64 rows, \d+ active/,
  );
  const trained = await saetta(
    folder,
    "train",
    "acts.h5",
    "--init",
    "mine",
    "--out",
    "run",
    "--ema",
    "0.9",
    "--engine",
    "reference",
    "--batch",
    "16",
    "--json",
  );
  expect(trained.code).toBe(0);
  const measured = await saetta(
    folder,
    "eval",
    join(FIXTURES, "dictionary_learning"),
    "acts.h5",
    "--engine",
    "reference",
    "--json",
  );
  expect(JSON.parse(measured.out)).toMatchObject({ data: "acts.h5: 400 x 12 f32", metrics: { l0: 4, latents: 40 } });
  const exported = await saetta(
    folder,
    "export",
    "run",
    "--format",
    "dictionary_learning",
    "--out",
    "theirs",
    "--verify",
    "--hook",
    "resid",
    "--json",
  );
  expect(exported).toMatchObject({ code: 0, err: "" });
  expect(JSON.parse(exported.out)).toMatchObject({
    out: "theirs",
    files: ["ae.pt", "config.json"],
    weights: "ema",
    verified: { rows: 64 },
  });
  expect(JSON.parse(await readFile(join(folder, "theirs", "config.json"), "utf8"))).toMatchObject({
    trainer: { submodule_name: "resid" },
  });
  const raw = await saetta(folder, "export", "run", "--format", "saelens", "--out", "raw", "--weights", "raw");
  expect(raw.out).toContain("weights      raw, of the last step");
});

it("what a format cannot say is wrong usage, and what is no autoencoder a failure, each in one line", async () => {
  const refused = await saetta(folder, "export", join(FIXTURES, "saelens"), "--format", "openai", "--out", "never");
  expect(refused).toMatchObject({ code: 2, out: "" });
  expect(refused.err).toMatch(
    /^saetta: OpenAI's loader layer-normalises the rows of every TopK autoencoder, which training did not; use --bare .*\n$/,
  );
  const bare = await saetta(
    folder,
    "export",
    join(FIXTURES, "saelens"),
    "--format",
    "openai",
    "--out",
    "bare",
    "--bare",
  );
  expect(bare).toMatchObject({
    code: 0,
    err: "saetta: note: the file does not say that k is 4, nor that rows are taken as they are: tell whoever reads it\n",
  });
  const none = await saetta(folder, "import", "acts.h5", "--out", "never");
  expect(none).toMatchObject({ code: 1, out: "" });
  expect(none.err).toMatch(/^saetta: acts\.h5: is no autoencoder that Saetta reads: .*\n$/);
});
