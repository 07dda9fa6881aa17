import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { tinyModel, tinyTokenizer } from "../../test/support/onnx.ts";
import { heldOut } from "../data/holdout.ts";
import { openSource } from "../data/open.ts";
import { samplePlaces } from "../data/sample-places.ts";
import { harvest } from "./harvest.ts";
import { openModelSource } from "./model-source.ts";

const root = mkdtempSync(join(tmpdir(), "saetta-model-source-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const WIDTH = 2;
const CONTEXT = 16;
const model = join(root, "model");
mkdirSync(model);
writeFileSync(join(model, "model.onnx"), tinyModel(Array.from({ length: 5 * WIDTH }, (_, i) => Math.sin(i))));
writeFileSync(join(model, "tokenizer.json"), tinyTokenizer(["<s>", "a", "b", "c", "d"]));
const text = join(root, "text.txt");
const letters = (count: number) => Array.from({ length: count }, (_, i) => "abcd"[(i * i + (i >> 3)) % 4]).join(" ");
writeFileSync(text, `${letters(3000)}\n\n${letters(1000)}\n`);

it("rows of a model are those that harvest writes, wherever they are read", async () => {
  const out = join(root, "acts.h5");
  const { rows } = await harvest({ model, text, tensor: "doubled", out, context: CONTEXT });
  const file = await openSource([out]);
  const source = await openModelSource({ model, text, tensor: "doubled", context: CONTEXT });
  expect(source).toMatchObject({ dIn: WIDTH, rows, dtype: "f16", sequence: CONTEXT, computed: 1024, grain: 1024 });
  expect(source.origin).toMatchObject({ tensor: "doubled", startToken: 0 });
  const bytes = (count: number) => new Uint8Array(2 * WIDTH * count);
  for (const [first, count] of [
    [0, rows],
    [1000, 100],
    [5, 1],
    [rows - 1, 1],
    [1024, 1024],
  ] as const) {
    const [ours, theirs] = [bytes(count), bytes(count)];
    // Two at a time: the model runs one after the other.
    const twice = bytes(1);
    await Promise.all([source.read(first, count, ours), source.read(0, 1, twice)]);
    await file.read(first, count, theirs);
    expect(ours).toEqual(theirs);
    expect(await source.tokens!(first, count)).toEqual(await file.tokens!(first, count));
  }
  // What is computed together is sampled and held out together.
  const places = [...samplePlaces(source, 2000, false, 1)];
  expect(places.every(({ first, count }) => first % 1024 === 0 && count <= 1024)).toBe(true);
  for (const { first } of heldOut(source, 0.3, 1)) expect(first % 1024).toBe(0);
  await file.close();
  await source.close();
});
