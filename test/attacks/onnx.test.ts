import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { cutAt, parseOnnx, tensorNames } from "../../src/language-model/onnx-graph.ts";
import { openSession } from "../../src/language-model/session.ts";
import { structureOf } from "../../src/language-model/structure.ts";
import { attribute, FLOAT, field, graph, INT64, model, node, tensor, tinyModel, valueInfo } from "../support/onnx.ts";
import { place, refusal } from "./attack.ts";

async function parse(path: string): Promise<void> {
  const parsed = parseOnnx(await readFile(path), path);
  structureOf(parsed);
  cutAt(parsed, tensorNames(parsed));
}

async function run(path: string): Promise<void> {
  const parsed = parseOnnx(await readFile(path), path);
  const session = await openSession(cutAt(parsed, ["doubled"]), path, 1);
  try {
    await session.run(new Int32Array(6), 2, ["doubled"]);
  } finally {
    await session.close();
  }
}

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(" ", ""), "hex");

/** An If inside an If inside ... */
function nested(depth: number): Buffer {
  let body = graph({ nodes: [node("Neg", ["x"], ["y"])], outputs: [] });
  for (let i = 0; i < depth; i++)
    body = graph({ nodes: [node("If", ["c"], ["y"], [attribute("then_branch", { graph: body })])], outputs: [] });
  return Buffer.concat([field(1, 8), field(7, body)]);
}

const EXTERNAL =
  "are in another file (ONNX external data), which is not supported; save the model as one file: onnx.save(onnx.load(path), path, save_as_external_data=False)";
/** A weight that says that it lies in /etc/passwd. */
const outside = Buffer.concat([
  tensor("w", [2], Float32Array.of(), true),
  field(13, Buffer.concat([field(1, "location"), field(2, "../../../../etc/passwd")])),
]);

describe("an ONNX file is refused", () => {
  it.each<[string, Buffer, string]>([
    [
      "with a number of 11 bytes",
      hex("08 80 80 80 80 80 80 80 80 80 80 01"),
      "FILE: not an ONNX model: a number of more than 10 bytes at byte 1",
    ],
    ["that ends inside a number", hex("08 80 80"), "FILE: not an ONNX model: the data ends inside a number at byte 1"],
    [
      "with a field longer than the file",
      hex("3a 05 01 02"),
      "FILE: not an ONNX model: a field of 5 bytes where 2 are left at byte 0",
    ],
    [
      "with a field of 2^63 bytes",
      hex("3a 80 80 80 80 80 80 80 80 80 01 01"),
      "FILE: not an ONNX model: a field of 9223372036854776000 bytes where 1 are left at byte 0",
    ],
    ["with a field of number 0", hex("02 01 00"), "FILE: not an ONNX model: a field without a valid number at byte 0"],
    [
      "with a group, which nothing closes",
      hex("3b 08 01"),
      "FILE: not an ONNX model: a field of unknown type 3 at byte 0",
    ],
    ["of which the graph is a number", hex("38 01"), "FILE: not an ONNX model: field 7 before byte 2 is not a message"],
    ["without a graph", field(1, 8), "FILE: not an ONNX model: it has no graph with nodes"],
    [
      "with bodies nested without end",
      nested(1000),
      expect.stringMatching(/^FILE: the graph nests more than 32 bodies at byte \d+$/) as string,
    ],
    [
      "in which two nodes write the same",
      tinyModel([1, 2], { nodes: [node("Neg", ["embedded"], ["doubled"])] }),
      "FILE: not a valid ONNX graph: two nodes write 'doubled'",
    ],
    [
      "with weights in another file",
      tinyModel([1, 2], { initializers: [outside] }),
      `FILE: the weights of 'w' ${EXTERNAL}`,
    ],
    [
      "with a constant in another file",
      tinyModel([1, 2], { nodes: [node("Constant", [], ["k"], [attribute("value", { tensor: outside })])] }),
      `FILE: the weights of 'w' ${EXTERNAL}`,
    ],
    [
      "with a function that has a constant in another file",
      Buffer.concat([
        tinyModel([1, 2]),
        field(25, field(7, node("Constant", [], ["k"], [attribute("value", { tensor: outside })]))),
      ]),
      `FILE: the weights of 'w' ${EXTERNAL}`,
    ],
    [
      "with training that has weights in another file",
      Buffer.concat([
        tinyModel([1, 2]),
        field(20, field(1, graph({ nodes: [], initializers: [outside], outputs: [] }))),
      ]),
      `FILE: the weights of 'w' ${EXTERNAL}`,
    ],
  ])("%s", async (_, bytes, line) => {
    expect(await refusal(place("model.onnx", bytes), parse)).toEqual(line);
  });

  it("when its nodes need each other: searching ends, and ONNX Runtime refuses it", async () => {
    const cycle = model({
      nodes: [node("Add", ["doubled", "input_ids"], ["a"]), node("Identity", ["a"], ["doubled"])],
      inputs: [valueInfo("input_ids", INT64, ["b", "s"])],
      outputs: [valueInfo("doubled", INT64, ["b", "s"])],
    });
    const path = place("model.onnx", cycle);
    await parse(path);
    expect(await refusal(path, run)).toMatch(/^FILE: ONNX Runtime does not take the model \(/);
  });

  it("when a weight is of a size that it has not", async () => {
    const huge = Buffer.concat([
      field(1, 2 ** 40),
      field(1, 2 ** 20),
      field(2, FLOAT),
      field(8, "w"),
      field(9, Buffer.alloc(16)),
    ]);
    const bytes = tinyModel([1, 2], { nodes: [node("Add", ["doubled", "w"], ["more"])], initializers: [huge] });
    const path = place("model.onnx", bytes);
    await parse(path);
    const whole = (at: string) => readFile(at).then((content) => openSession(content, at, 1));
    expect(await refusal(path, whole)).toMatch(/^FILE: ONNX Runtime does not take the model \(/);
  });
});
