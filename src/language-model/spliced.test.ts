import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { attribute, FLOAT, FLOAT16, node, tensor, tinyModel, valueInfo } from "../../test/support/onnx.ts";
import { type LanguageModel, loadModel } from "./load.ts";
import { cutAt, type GivenTensor, parseOnnx, tensorNames } from "./onnx-graph.ts";
import { openSession } from "./session.ts";
import { openSpliced } from "./spliced.ts";

const folder = mkdtempSync(join(tmpdir(), "saetta-spliced-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const example = loadModel("examples/brown-gpt/model.onnx");

let files = 0;
function written(bytes: Uint8Array): Promise<LanguageModel> {
  const path = join(folder, `model-${++files}.onnx`);
  writeFileSync(path, bytes);
  return loadModel(path);
}

/**
 * Values of `output` for one context of `ids`, with `given` in the place of a tensor of width 2.
 */
async function run(
  model: LanguageModel,
  output: string,
  ids: readonly number[],
  given: GivenTensor,
  values: readonly number[],
) {
  const session = await openSession(cutAt(model.graph, [output], given), model.path, 1, {
    given: given.name,
    tokens: "input_ids",
  });
  const found = await session.run(Int32Array.from(ids), 1, [output], {
    shape: [1, ids.length, 2],
    values: Float32Array.from(values),
  });
  await session.close();
  return [...found.get(output)!.values];
}

const GIVEN = { name: "embedded", dtype: "float32", width: 2 } as const;

describe("a tensor that is given", () => {
  it("is read by all that reads it, and what only it needed is gone", async () => {
    // residual = embedded + 2 embedded: both sides see what is given.
    const model = await written(
      tinyModel([1, 2, 3, 4, 5, 6], {
        nodes: [node("Add", ["embedded", "doubled"], ["residual"]), node("Identity", ["residual"], ["logits"])],
        outputs: [valueInfo("logits", FLOAT, ["b", "s", 2])],
      }),
    );
    expect(await run(model, "logits", [0, 2], GIVEN, [10, 20, 30, 40])).toEqual([30, 60, 90, 120]);
    const part = parseOnnx(cutAt(model.graph, ["logits"], GIVEN), "part.onnx");
    expect(part.inputs).toEqual(["embedded"]);
    expect(tensorNames(part)).not.toContain("embedded");
    expect(part.initializers.size).toBe(0);
  });

  it("leaves alone what else comes from its node, and from the tokens", async () => {
    const halves = tensor("axis sizes", [2], BigInt64Array.of(1n, 1n));
    const model = await written(
      tinyModel([1, 2, 3, 4, 5, 6], {
        initializers: [halves],
        nodes: [
          node("Split", ["embedded", "axis sizes"], ["left", "right"], [attribute("axis", { int: 2 })]),
          node("Concat", ["right", "left"], ["turned"], [attribute("axis", { int: 2 })]),
          node("Add", ["turned", "embedded"], ["logits"]),
        ],
        outputs: [valueInfo("logits", FLOAT, ["b", "s", 2])],
      }),
    );
    const left = { name: "left", dtype: "float32", width: 1 } as const;
    const session = await openSession(cutAt(model.graph, ["logits"], left), model.path, 1, {
      given: "left",
      tokens: "input_ids",
    });
    const found = await session.run(Int32Array.of(0, 2), 1, ["logits"], {
      shape: [1, 2, 1],
      values: Float32Array.of(100, 200),
    });
    await session.close();
    expect([...found.get("logits")!.values]).toEqual([2 + 1, 100 + 2, 6 + 5, 200 + 6]);
  });

  it("may be of float16", async () => {
    const model = await written(
      tinyModel([1, 2, 3, 4], {
        nodes: [
          node("Cast", ["embedded"], ["half"], [attribute("to", { int: FLOAT16 })]),
          node("Add", ["half", "half"], ["sum"]),
          node("Cast", ["sum"], ["logits"], [attribute("to", { int: FLOAT })]),
        ],
        outputs: [valueInfo("logits", FLOAT, ["b", "s", 2])],
      }),
    );
    const spliced = await openSpliced(model, "half", 1, Int32Array.of(0, 1));
    expect(spliced).toMatchObject({ width: 2, vocabulary: 2, identityDifference: 0 });
    expect([...(await spliced.spliced(Int32Array.of(0, 1), 1, Float32Array.of(1, 2049, 0.5, -3)))]).toEqual([
      2, 4096, 1, -6,
    ]);
    await spliced.close();
  });

  it("is refused where the logits do not depend on it", async () => {
    const model = await written(tinyModel([1, 2], { nodes: [node("Neg", ["embedded"], ["aside"])] }));
    expect(() => cutAt(model.graph, ["doubled"], { ...GIVEN, name: "aside" })).toThrow(
      /nothing of 'doubled' depends on the tensor 'aside'/,
    );
  });
});

describe("the identity splice", () => {
  const ids = Int32Array.from({ length: 3 * 40 }, (_, i) => (i % 40 === 0 ? 0 : (i * 7919) % 8192));

  it.each([
    "/transformer/h.3/Add_1_output_0",
    "/transformer/h.2/Add_output_0",
    "/transformer/h.4/mlp/c_proj/Add_output_0",
    "/transformer/h.1/ln_2/LayerNormalization_output_0",
    "/transformer/Add_output_0",
  ])("gives every logit of the model as it is, to the bit: %s", async (name) => {
    const model = await example;
    const plain = await openSession(cutAt(model.graph, ["logits"]), model.path, 2);
    const expected = (await plain.run(ids, 3, ["logits"])).get("logits")!.values;
    await plain.close();
    const spliced = await openSpliced(model, name, 2, ids.subarray(0, 40));
    expect(spliced).toMatchObject({ width: 256, vocabulary: 8192, identityDifference: 0 });
    const { activations, logits } = await spliced.original(ids, 3);
    expect(Buffer.from(logits.buffer).equals(Buffer.from(expected.buffer))).toBe(true);
    const again = await spliced.spliced(ids, 3, activations);
    expect(Buffer.from(again.buffer).equals(Buffer.from(expected.buffer))).toBe(true);
    // What is spliced matters, at its position and after it only.
    activations[256 * 20] += 1;
    const other = await spliced.spliced(ids, 3, activations);
    const differs = Array.from({ length: 120 }, (_, row) =>
      other.subarray(row * 8192, (row + 1) * 8192).some((it, i) => it !== again[row * 8192 + i]),
    );
    expect(differs.findIndex(Boolean)).toBe(20);
    expect(differs.lastIndexOf(true)).toBeLessThan(40);
    await spliced.close();
  });

  it("is told apart where a model does not repeat itself", async () => {
    const noise = node("RandomNormalLike", ["doubled"], ["noise"]);
    const model = await written(
      tinyModel([1, 2, 3, 4], {
        nodes: [noise, node("Add", ["doubled", "noise"], ["logits"])],
        outputs: [valueInfo("logits", FLOAT, ["b", "s", 2])],
      }),
    );
    const spliced = await openSpliced(model, "embedded", 1, Int32Array.of(0, 1));
    expect(spliced.identityDifference).toBeGreaterThan(0);
    await spliced.close();
  });
});

describe("the logits", () => {
  it("are the output of that name, or the only one", async () => {
    const two = await written(
      tinyModel([1, 2], { nodes: [node("Neg", ["doubled"], ["a"])], outputs: [valueInfo("a", FLOAT, ["b", "s", 2])] }),
    );
    await expect(openSpliced(two, "embedded", 1, Int32Array.of(0))).rejects.toThrow(
      /has no output 'logits' \(it has doubled, a\)/,
    );
    const one = await openSpliced(await written(tinyModel([1, 2])), "embedded", 1, Int32Array.of(0));
    expect(one.vocabulary).toBe(2);
    await one.close();
  });
});
