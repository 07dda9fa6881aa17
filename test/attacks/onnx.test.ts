import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { loadModel } from "../../src/language-model/load.ts";
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
  "is a constant whose bytes are in another file; only weights can be there; save the model as one file: onnx.save(onnx.load(path), path, save_as_external_data=False)";
/** A weight whose bytes are said to be elsewhere. */
const elsewhere = (entries: Readonly<Record<string, string>>, shape: readonly number[] = [2]) =>
  tensor("w", shape, Float32Array.of(), entries);
const outside = elsewhere({ location: "../../../../etc/passwd" });
const weights = (entries: Readonly<Record<string, string>>, shape?: readonly number[]) =>
  tinyModel([1, 2], { initializers: [elsewhere(entries, shape)] });

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
    ...["../../../../etc/passwd", "a/../../b", "/etc/passwd", "..", "C:\\w", "a\\..\\..\\b", "a//b", "x\0y"].map(
      (location): [string, Buffer, string] => [
        `with weights in ${JSON.stringify(location)}`,
        weights({ location }),
        expect.stringMatching(
          /^FILE: the weights of 'w' are in '.*', which is not a file of the model's folder$/,
        ) as string,
      ],
    ),
    [
      "with weights in a file without a name",
      weights({}),
      "FILE: the weights of 'w' are in another file, whose name is missing",
    ],
    [
      "with weights at a negative offset",
      weights({ location: "w", offset: "-8" }),
      "FILE: the weights of 'w' have the offset '-8', which is no number of bytes",
    ],
    [
      "with weights of a length that is not their shape's",
      weights({ location: "w", length: "4294967304" }),
      "FILE: the weights of 'w' are said to be 4294967304 bytes, but their shape takes 8",
    ],
    [
      "with weights of more bytes than a number can say",
      weights({ location: "w" }, [2 ** 40, 2 ** 40]),
      "FILE: the weights of 'w' are in another file and of a type or size that cannot be there",
    ],
    [
      "with a constant in another file",
      tinyModel([1, 2], { nodes: [node("Constant", [], ["k"], [attribute("value", { tensor: outside })])] }),
      `FILE: 'w' ${EXTERNAL}`,
    ],
    [
      "with a function that has a constant in another file",
      Buffer.concat([
        tinyModel([1, 2]),
        field(25, field(7, node("Constant", [], ["k"], [attribute("value", { tensor: outside })]))),
      ]),
      `FILE: 'w' ${EXTERNAL}`,
    ],
    [
      "with training that has weights in another file",
      Buffer.concat([
        tinyModel([1, 2]),
        field(20, field(1, graph({ nodes: [], initializers: [outside], outputs: [] }))),
      ]),
      `FILE: 'w' ${EXTERNAL}`,
    ],
  ])("%s", async (_, bytes, line) => {
    expect(await refusal(place("model.onnx", bytes), parse)).toEqual(line);
  });

  it("when its weights are not in the file that they are said to be in", async () => {
    const load = (path: string) => loadModel(path);
    const missing = place("model.onnx", weights({ location: "w.bin" }));
    const data = join(dirname(missing), "w.bin");
    const words = (path: string) =>
      loadModel(path).then(String, (thrown: Error) => thrown.message.replaceAll(dirname(path), "DIR"));
    expect(await words(missing)).toBe(
      "DIR/w.bin: the file with weights of DIR/model.onnx cannot be read; put it next to the model, under the name that it was saved with",
    );
    writeFileSync(data, new Uint8Array(11));
    await load(missing);
    for (const offset of ["4", "9007199254740991"]) {
      const path = place("model.onnx", weights({ location: "w.bin", offset }));
      writeFileSync(join(dirname(path), "w.bin"), new Uint8Array(11));
      expect(await words(path)).toMatch(
        /^DIR\/w\.bin: the weights of 'w' are bytes \d+ to \d+, but it has 11; copy it again/,
      );
    }
    const linked = place("model.onnx", weights({ location: "w.bin" }));
    symlinkSync(data, join(dirname(linked), "w.bin"));
    expect(await words(linked)).toBe(
      "DIR/w.bin: a link to a file outside the model's folder, which is not followed; copy the file there: cp -L",
    );
    const through = place("model.onnx", weights({ location: "sub/w.bin" }));
    symlinkSync(dirname(data), join(dirname(through), "sub"));
    expect(await words(through)).toMatch(/^DIR\/sub\/w\.bin: a link to a file outside the model's folder/);
    const folder = place("model.onnx", weights({ location: "w.bin" }));
    mkdirSync(join(dirname(folder), "w.bin"));
    expect(await words(folder)).toMatch(/^DIR\/w\.bin: the file with weights of/);
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
