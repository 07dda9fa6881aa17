import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  attribute,
  BOOL,
  FLOAT,
  field,
  graph,
  model,
  node,
  tensor,
  tinyModel,
  valueInfo,
} from "../../test/support/onnx.ts";
import { FormatError, SaettaError } from "../util/errors.ts";
import { cutAt, parseOnnx, tensorNames } from "./onnx-graph.ts";
import { structureOf } from "./structure.ts";

const FILE = "examples/brown-gpt/model.onnx";
const BLOCK_3 = "/transformer/h.3/Add_1_output_0";
const bytes = readFileSync(FILE);

describe("a cut", () => {
  it("keeps what the tensor needs, byte for byte, and nothing else", () => {
    const whole = parseOnnx(bytes, FILE);
    const part = parseOnnx(cutAt(whole, [BLOCK_3]), FILE);
    expect(part.outputs).toEqual([BLOCK_3]);
    expect(part.inputs).toEqual(["input_ids"]);
    expect(part.nodes.length).toBeLessThan(whole.nodes.length * 0.75);
    const later = (name: string) => /h\.[45]\.|ln_f|lm_head/.test(name);
    expect([...whole.initializers.keys()].filter(later)).not.toEqual([]);
    expect([...part.initializers.keys()].filter(later)).toEqual([]);
    expect(tensorNames(part).filter((name) => /h\.[45]\/|ln_f|logits/.test(name))).toEqual([]);
    expect([...part.initializers.keys()].filter((name) => name.includes("h.3."))).toHaveLength(12);
    const raw = (name: string, of: typeof whole) => Buffer.from(of.initializers.get(name)!.raw);
    for (const name of part.initializers.keys()) expect(raw(name, part).equals(raw(name, whole))).toBe(true);
  });

  it("at a model's own outputs loses nothing that they need", () => {
    const whole = parseOnnx(bytes, FILE);
    const same = parseOnnx(cutAt(whole, whole.outputs), FILE);
    expect(same.nodes.length).toBe(whole.nodes.length);
    expect([...same.initializers.keys()]).toEqual([...whole.initializers.keys()]);
  });

  it("keeps what the bodies of an If read from outside, and not what they make themselves", () => {
    const body = (from: string) =>
      graph({
        nodes: [node("Identity", [from], ["inner"]), node("Neg", ["inner"], [`${from}_out`])],
        outputs: [valueInfo(`${from}_out`, FLOAT, [2])],
      });
    const parsed = parseOnnx(
      model({
        nodes: [
          node("Neg", ["x"], ["a"]),
          node("Abs", ["x"], ["b"]),
          node("Exp", ["x"], ["unused"]),
          node("Sin", ["x"], ["inner2"]),
          node(
            "If",
            ["c"],
            ["y"],
            [attribute("then_branch", { graph: body("a") }), attribute("else_branch", { graph: body("b") })],
          ),
          node("Cos", ["y"], ["z"]),
        ],
        initializers: [tensor("c", [], Uint8Array.of(1)), tensor("w", [1], Float32Array.of(1))],
        inputs: [valueInfo("x", FLOAT, [2]), valueInfo("other", BOOL, [])],
        outputs: [valueInfo("z", FLOAT, [2])],
      }),
      "if.onnx",
    );
    expect(parsed.nodes[4]!.inputs).toEqual(["c", "a", "b"]);
    const part = parseOnnx(cutAt(parsed, ["y"]), "if.onnx");
    expect(part.nodes.map(({ op }) => op)).toEqual(["Neg", "Abs", "If"]);
    expect([...part.initializers.keys()]).toEqual(["c"]);
    expect(part.inputs).toEqual(["x"]);
  });
});

describe("the structure of a model", () => {
  it("is that of the example", () => {
    const { tokens, width, positions } = structureOf(parseOnnx(bytes, FILE));
    expect({ tokens, width, positions }).toEqual({ tokens: 8192, width: 256, positions: 256 });
  });

  it("does not take a table of segments, or of another width, for one of positions", () => {
    const extra = (rows: number, columns = 2) =>
      tinyModel([1, 2, 3, 4], {
        initializers: [
          tensor("other", [rows, columns], new Float32Array(columns * rows)),
          tensor("index", [1], BigInt64Array.of(0n)),
        ],
        nodes: [node("Gather", ["other", "index"], ["looked_up"])],
      });
    expect(structureOf(parseOnnx(extra(2), "m.onnx")).positions).toBeUndefined();
    expect(structureOf(parseOnnx(extra(64, 3), "m.onnx")).positions).toBeUndefined();
    expect(structureOf(parseOnnx(extra(64), "m.onnx")).positions).toBe(64);
  });
});

describe("a file that is no usable model", () => {
  it("is a FormatError wherever it was cut off", () => {
    const small = tinyModel([1, 2, 3, 4]);
    const graphEnd = small.length - field(8, field(2, 17)).length;
    for (let length = 0; length < graphEnd; length++) {
      expect(() => parseOnnx(small.subarray(0, length), "cut.onnx"), `cut to ${length} bytes`).toThrow(FormatError);
    }
    expect(() => parseOnnx(bytes.subarray(0, 1_000_000), "cut.onnx")).toThrow(
      /^cut\.onnx: not an ONNX model: .* at byte \d+/,
    );
  });

  it("never ends in anything but a FormatError or SaettaError when bytes are changed", () => {
    const small = tinyModel([1, 2, 3, 4]);
    for (let at = 0; at < small.length; at++) {
      for (const value of [0, 0x7f, 0xff, small[at]! ^ 8]) {
        const changed = Buffer.from(small);
        changed[at] = value;
        try {
          cutAt(parseOnnx(changed, "x.onnx"), ["doubled"]);
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(SaettaError);
        }
      }
    }
  });

  it.each([
    ["text", Buffer.from("this is not a protocol buffer at all")],
    ["zeros", Buffer.alloc(1000)],
    ["an endless number", Buffer.alloc(40, 0xff)],
    ["a length beyond the end", Buffer.from([0x3a, 0xff, 0xff, 0xff, 0xff, 0x7f, 1])],
    ["a message without a graph", field(1, 8)],
  ])("refuses %s", (_name, content) => {
    expect(() => parseOnnx(content, "bad.onnx")).toThrow(FormatError);
  });

  it("refuses bodies within bodies without end, and does not overflow the stack", () => {
    let body = graph({ nodes: [node("Neg", ["x"], ["y"])], outputs: [] });
    for (let i = 0; i < 2000; i++)
      body = graph({ nodes: [node("If", ["c"], ["y"], [attribute("then_branch", { graph: body })])], outputs: [] });
    expect(() => parseOnnx(field(7, body), "deep.onnx")).toThrow(/nests more than 32 bodies/);
  });

  it("refuses a tensor that two nodes write", () => {
    const twice = model({
      nodes: [node("Neg", ["x"], ["y"]), node("Abs", ["x"], ["y"])],
      outputs: [valueInfo("y", FLOAT, [1])],
    });
    expect(() => structureOf(parseOnnx(twice, "twice.onnx"))).toThrow(/two nodes write 'y'/);
  });

  it("refuses constants in other files, and weights in files that it does not name", () => {
    const far = (entries: Readonly<Record<string, string>>) => tensor("w", [2], Float32Array.of(), entries);
    const asWeight = tinyModel([1, 2], { initializers: [far({})] });
    expect(() => parseOnnx(asWeight, "ext.onnx")).toThrow(/'w' are in another file, whose name is missing/);
    const asConstant = tinyModel([1, 2], {
      nodes: [node("Constant", [], ["w"], [attribute("value", { tensor: far({ location: "w" }) })])],
    });
    expect(() => parseOnnx(asConstant, "ext.onnx")).toThrow(/'w' is a constant .* save the model as one file/);
    const named = parseOnnx(tinyModel([1, 2], { initializers: [far({ location: "w", offset: "4" })] }), "ext.onnx");
    expect(named.initializers.get("w")?.external).toEqual({ location: "w", offset: 4, length: 8 });
  });
});
