/**
 * ONNX: the graph as it is parsed, searched and cut. What ONNX Runtime makes of it is
 * `onnx-runtime`.
 */

import { readFile } from "node:fs/promises";
import { hashModel } from "../../../src/language-model/external-data.ts";
import { cutAt, parseOnnx, tensorNames } from "../../../src/language-model/onnx-graph.ts";
import { fieldsOf, type Message } from "../../../src/language-model/protobuf.ts";
import { structureOf } from "../../../src/language-model/structure.ts";
import { bytesOf } from "../../../src/util/bytes.ts";
import {
  attribute,
  BOOL,
  FLOAT,
  field,
  graph,
  INT64,
  model,
  node,
  tensor,
  tinyModel,
  valueInfo,
} from "../../support/onnx.ts";
import type { FuzzFormat, Sample } from "../format.ts";

function samples(): Sample[] {
  const body = (from: string) =>
    graph({
      nodes: [node("Identity", [from], ["inner"]), node("Neg", ["inner"], [`${from}_out`])],
      initializers: [tensor("own", [1], Float32Array.of(1))],
      outputs: [valueInfo(`${from}_out`, FLOAT, [2])],
    });
  const branches = model({
    nodes: [
      node("Neg", ["x"], ["a"]),
      node("Abs", ["x"], ["b"]),
      node(
        "If",
        ["c"],
        ["y"],
        [attribute("then_branch", { graph: body("a") }), attribute("else_branch", { graph: body("b") })],
      ),
      node(
        "Constant",
        [],
        ["k"],
        [attribute("value", { tensor: tensor("", [2], Float32Array.of(1, 2)) }), attribute("n", { int: 3 })],
      ),
      node("Add", ["y", "k"], ["z"]),
    ],
    inputs: [valueInfo("x", FLOAT, [2]), valueInfo("c", BOOL, [1])],
    outputs: [valueInfo("z", FLOAT, [2])],
  });
  const sparse = Buffer.concat([
    field(1, tensor("sparse", [1], Float32Array.of(1))),
    field(2, tensor("", [1], BigInt64Array.of(1n))),
    field(3, Uint8Array.of(2)),
  ]);
  const layers = tinyModel([0, 1, 2, 3, 4, 5, 6, 7], {
    nodes: [
      node("Gather", ["positions", "input_ids"], ["p"]),
      node("Add", ["doubled", "p"], ["s"]),
      node("Mul", ["s", "sparse"], ["m"]),
      node("Add", ["s", "m"], ["out"]),
    ],
    initializers: [tensor("positions", [16, 2], new Float32Array(32))],
    outputs: [valueInfo("out", FLOAT, ["b", "s", 2]), valueInfo("p", INT64, [])],
  });
  const whole = Buffer.concat([
    layers,
    field(7, field(15, sparse)),
    field(7, field(13, valueInfo("s", FLOAT, ["b", "s", 2]))),
  ]);
  const external = tinyModel([1, 2], { initializers: [tensor("w", [2], Float32Array.of(), {})] });
  const data = Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8);
  const part = (offset: number, length: number) => ({
    location: "model.onnx_data",
    offset: String(offset),
    length: String(length),
  });
  const weights = model({
    nodes: [
      node("Gather", ["table", "input_ids"], ["embedded"]),
      node("Add", ["embedded", "shift"], ["shifted"]),
      node("Identity", ["shifted"], ["logits"]),
    ],
    initializers: [
      tensor("table", [3, 2], Float32Array.of(), part(0, 24)),
      tensor("shift", [2], Float32Array.of(), part(24, 8)),
    ],
    inputs: [valueInfo("input_ids", INT64, ["b", "s"])],
    outputs: [valueInfo("logits", FLOAT, ["b", "s", 2])],
  });
  const named = (name: string, bytes: Buffer, refused = false): Sample => ({
    name,
    file: "model.onnx",
    bytes,
    refused,
  });
  return [
    named("layers", whole),
    named("branches", branches),
    named("external", external, true),
    { ...named("weights elsewhere", weights), beside: { "model.onnx_data": bytesOf(data) } },
  ];
}

const MAX_DEPTH = 8;

/** Where every field begins, of every message that could be one. */
export function onnxBoundaries(bytes: Buffer): number[] {
  const found = new Set<number>();
  const walk = (message: Message, depth: number): void => {
    const starts: number[] = [];
    try {
      for (const each of fieldsOf(message)) {
        starts.push(each.raw.byteOffset - bytes.byteOffset, each.body.at);
        if (each.type === "bytes" && each.body.bytes.length > 1 && depth < MAX_DEPTH) walk(each.body, depth + 1);
      }
    } catch {
      return; // text or numbers, no message
    }
    for (const at of starts) found.add(at);
  };
  walk({ file: "", at: 0, bytes }, 0);
  return [...found, bytes.length];
}

export const onnx: FuzzFormat = {
  name: "onnx",
  samples,
  boundaries: onnxBoundaries,
  async read(path) {
    const bytes = await readFile(path);
    const parsed = parseOnnx(bytes, path);
    await hashModel(bytes, parsed.initializers.values(), path);
    structureOf(parsed);
    const names = tensorNames(parsed);
    parseOnnx(cutAt(parsed, names), path);
    for (const name of names.slice(0, 8)) cutAt(parsed, [name]);
  },
};
