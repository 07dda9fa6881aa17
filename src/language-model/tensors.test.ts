import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { attribute, FLOAT, FLOAT16, INT64, node, tensor, tinyModel, valueInfo } from "../../test/support/onnx.ts";
import { UsageError } from "../util/errors.ts";
import { cutAt, parseOnnx } from "./onnx-graph.ts";
import { loadRuntime, openSession } from "./session.ts";
import { checkTensorName, listTensors } from "./tensors.ts";

const FILE = "examples/brown-gpt/model.onnx";
const example = parseOnnx(readFileSync(FILE), FILE);

describe("listTensors", () => {
  it("shows the residual stream first, and only float tensors [batch, sequence, width]", async () => {
    const found = await listTensors(example);
    const stream = [0, 1, 2, 3, 4, 5].flatMap((i) => [
      `/transformer/h.${i}/Add_output_0`,
      `/transformer/h.${i}/Add_1_output_0`,
    ]);
    expect(found.slice(0, 12)).toEqual(
      stream.map((name) => ({ name, shape: ["batch", "sequence", 256], residual: true })),
    );
    expect(found.slice(12).every(({ residual }) => !residual)).toBe(true);
    expect(found).toContainEqual({
      name: "/transformer/h.0/mlp/c_fc/MatMul_output_0",
      shape: ["batch", "sequence", 1024],
      residual: false,
    });
    expect(found).toContainEqual({ name: "logits", shape: ["batch", "sequence", 8192], residual: false });
    const names = found.map(({ name }) => name);
    expect(names).not.toContain("/transformer/h.0/attn/MatMul_output_0"); // [batch, heads, sequence, sequence]
    expect(names).not.toContain("/transformer/wpe/Gather_output_0"); // [sequence, width]
    expect(names).not.toContain("/transformer/Shape_output_0"); // int64
  });
});

describe("checkTensorName", () => {
  it("names the closest tensors for a slip of the hand, and those that hold a part of a name", () => {
    expect(() => checkTensorName(example, "/transformer/h.3/Add_1_output_0")).not.toThrow();
    expect(() => checkTensorName(example, "/transformer/h3/Add_1_output_0")).toThrow(
      /did you mean '\/transformer\/h\.3\/Add_1_output_0'.*--list-tensors/,
    );
    expect(() => checkTensorName(example, "h.3/Add_1")).toThrow(/did you mean '\/transformer\/h\.3\/Add_1_output_0'/);
    expect(() => checkTensorName(example, "blocks.8.hook_resid_post")).toThrow(UsageError);
    expect(() => checkTensorName(example, "zzz")).not.toThrow(/did you mean/);
  });
});

describe("openSession", () => {
  it("gives models what else they ask for: a mask of ones, positions, one segment", async () => {
    const inputs = ["attention_mask", "position_ids", "token_type_ids"].map((name) =>
      valueInfo(name, INT64, ["b", "s"]),
    );
    const nodes = [
      node("Mul", ["position_ids", "ten"], ["tens"]),
      node("Add", ["tens", "attention_mask"], ["sum"]),
      node("Add", ["sum", "token_type_ids"], ["all"]),
      node("Gather", ["row", "all"], ["picked"]),
    ];
    const initializers = [
      tensor("ten", [], BigInt64Array.of(10n)),
      tensor(
        "row",
        [40],
        Float32Array.from({ length: 40 }, (_, i) => i),
      ),
    ];
    const outputs = [valueInfo("picked", FLOAT, ["b", "s"])];
    const session = await openSession(
      tinyModel([1, 2, 3, 4], { nodes, initializers, inputs, outputs }),
      "tiny.onnx",
      1,
    );
    const results = await session.run(Int32Array.of(0, 1, 1, 1, 0, 0), 2, ["picked", "doubled"]);
    expect([...results.get("picked")!.values]).toEqual([1, 11, 21, 1, 11, 21]);
    expect([...results.get("doubled")!.values]).toEqual([2, 4, 6, 8, 6, 8, 6, 8, 2, 4, 2, 4]);
    expect(results.get("doubled")!.shape).toEqual([2, 3, 2]);
    await session.close();
  });

  it.each([
    ["past_key_values.0.key", FLOAT, ["b", 1, "p", 2], 2],
    ["past_key_values.0.key", FLOAT16, ["b", 1, "p", 2], 2],
    ["past.0.value", FLOAT, ["b", "p", 1, 2], 1],
    // Names that say nothing, and the batch not first.
    ["past_0", FLOAT, [1, "one", 1, "two", 2], 3],
  ])("gives %s, the keys or values of earlier tokens, a past of length 0", async (name, type, shape, axis) => {
    // Two contexts of three tokens: "doubled" in the past's own shape.
    const here = shape.map((size, i) => (typeof size === "number" ? size : i === axis ? 3 : 2));
    const nodes = [
      ...(type === FLOAT16
        ? [node("Cast", [name], ["wide"], [attribute("to", { int: FLOAT })])]
        : [node("Identity", [name], ["wide"])]),
      node("Reshape", ["doubled", "shape"], ["keys"]),
      node("Concat", ["wide", "keys"], ["all"], [attribute("axis", { int: axis })]),
      node("Reshape", ["all", "back"], ["flat"]),
    ];
    const initializers = [
      tensor("shape", [here.length], BigInt64Array.from(here, BigInt)),
      tensor("back", [3], BigInt64Array.of(2n, -1n, 2n)),
    ];
    const graph = { nodes, initializers, inputs: [valueInfo(name, type, shape)] };
    const session = await openSession(
      cutAt(parseOnnx(tinyModel([1, 2, 3, 4], graph), "past.onnx"), ["flat"]),
      "past.onnx",
      1,
    );
    const { values, shape: found } = (await session.run(Int32Array.of(0, 1, 1, 1, 0, 0), 2, ["flat"])).get("flat")!;
    expect(found).toEqual([2, 3, 2]);
    expect([...values]).toEqual([2, 4, 6, 8, 6, 8, 6, 8, 2, 4, 2, 4]);
    await session.close();
  });

  it("widens float16, exactly", async () => {
    const nodes = [node("Cast", ["doubled"], ["half"], [attribute("to", { int: FLOAT16 })])];
    const graph = parseOnnx(tinyModel([1, -0.5, 1e-7, 3000], { nodes }), "half.onnx");
    const session = await openSession(cutAt(graph, ["half"]), "half.onnx", 1);
    expect([...(await session.run(Int32Array.of(0, 1), 1, ["half"])).get("half")!.values]).toEqual([
      2,
      -1,
      3 * 2 ** -24,
      6000,
    ]);
    await session.close();
    expect((await listTensors(graph)).map(({ name }) => name)).toEqual(["embedded", "doubled", "half"]);
  });

  it("refuses a model that asks for what is not known", async () => {
    const of = (name: string, type: number, shape: readonly (number | string)[]) =>
      openSession(tinyModel([1, 2], { inputs: [valueInfo(name, type, shape)] }), "odd.onnx", 1);
    const message = (name: string, type: string) =>
      `odd.onnx: the model wants an input '${name}' (${type}), of which nothing is known here; export it with input_ids only`;
    await expect(of("pixels", FLOAT, ["b", 3])).rejects.toThrow(message("pixels", "float32"));
    // A past of a length that is fixed.
    await expect(of("past_key_values.0.key", FLOAT, [1, 4, 16, 2])).rejects.toThrow(
      message("past_key_values.0.key", "float32"),
    );
  });

  it("says in one line what the runtime does not take", async () => {
    await expect(
      openSession(
        cutAt(parseOnnx(tinyModel([1, 2], { nodes: [node("NoSuchOp", ["doubled"], ["y"])] }), "odd.onnx"), ["y"]),
        "odd.onnx",
        1,
      ),
    ).rejects.toThrow(/^odd\.onnx: ONNX Runtime does not take the model \(.*NoSuchOp/);
  });

  it("says how to install the runtime where it is missing", async () => {
    const missing = Object.assign(new Error("Cannot find package"), { code: "ERR_MODULE_NOT_FOUND" });
    await expect(loadRuntime(() => Promise.reject(missing))).rejects.toThrow(
      /^harvest and eval --loss need onnxruntime-node: npm install --ignore-scripts onnxruntime-node@1\.30\.0$/,
    );
    await expect(loadRuntime(() => Promise.reject(new Error("libfoo.so is missing")))).rejects.toThrow(
      /onnxruntime-node cannot be loaded \(libfoo\.so is missing\); install it anew/,
    );
    expect(JSON.parse(readFileSync("package.json", "utf8")).peerDependencies["onnxruntime-node"]).toBe("1.30.0");
  });
});
