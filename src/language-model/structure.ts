/**
 * What the graph itself says of a language model: how many tokens and positions it knows, and where
 * its residual stream is.
 */

import { type Node, type OnnxGraph, producersOf } from "./onnx-graph.ts";

export interface Structure {
  /**
   * Rows of the token embedding, i.e. how many token ids the model knows; undefined where no plain
   * embedding is found.
   */
  readonly tokens: number | undefined;
  /** Columns of the token embedding, i.e. the width of the residual stream; undefined likewise. */
  readonly width: number | undefined;
  /** Positions of a learned position embedding; undefined for models that have none. */
  readonly positions: number | undefined;
  /**
   * Where the residual stream may be, if it is of that width: sums of something new and a tensor
   * that is also used elsewhere.
   */
  readonly residual: ReadonlySet<string>;
}

/** Operations that hand their first input on without changing which row is which. */
const TRANSPARENT: ReadonlySet<string> = new Set(["Cast", "Identity", "DequantizeLinear"]);
/** Inputs of text models whose embeddings are not by position. */
const TOKEN_INPUTS: ReadonlySet<string> = new Set(["input_ids", "token_type_ids"]);

/** A table with fewer rows numbers segments, not positions. */
const MIN_POSITIONS = 16;

export function structureOf(graph: OnnxGraph): Structure {
  const producers = producersOf(graph);
  const origin = (name: string): string => {
    let at = name;
    const seen = new Set<string>();
    for (
      let node = producers.get(at);
      node !== undefined && TRANSPARENT.has(node.op) && !seen.has(at);
      node = producers.get(at)
    ) {
      seen.add(at);
      at = node.inputs[0] ?? at;
    }
    return at;
  };
  // Tables of which rows are looked up by number: [rows, columns], and where the numbers come from.
  const tables = graph.nodes.flatMap(({ op, inputs: [table, index] }) => {
    const [rows, columns, ...more] =
      (op === "Gather" && table !== undefined && graph.initializers.get(origin(table))?.shape) || [];
    if (rows === undefined || columns === undefined || more.length > 0 || index === undefined) return [];
    return [{ rows, columns, index: origin(index) }];
  });
  const token = tables.find(({ index }) => index === tokenInput(graph));
  const position = tables.filter(
    ({ rows, columns, index }) =>
      columns === token?.columns && rows >= MIN_POSITIONS && !TOKEN_INPUTS.has(index) && index !== tokenInput(graph),
  );
  const positions = position.length === 0 ? undefined : Math.min(...position.map(({ rows }) => rows));
  return { tokens: token?.rows, width: token?.columns, positions, residual: residualOf(graph, producers) };
}

/** The input that takes token ids: `input_ids`, or the only input there is. */
export function tokenInput(graph: Pick<OnnxGraph, "inputs">): string | undefined {
  return graph.inputs.includes("input_ids") || graph.inputs.length !== 1 ? "input_ids" : graph.inputs[0];
}

function residualOf(graph: OnnxGraph, producers: ReadonlyMap<string, Node>): Set<string> {
  const readers = new Map<string, number>();
  for (const node of graph.nodes)
    for (const name of new Set(node.inputs)) readers.set(name, (readers.get(name) ?? 0) + 1);
  const carries = (name: string): boolean => producers.has(name) && (readers.get(name) ?? 0) > 1;
  const sums = graph.nodes.filter((node) => node.op === "Add" && node.inputs.length === 2 && node.inputs.some(carries));
  return new Set(sums.flatMap((node) => node.outputs));
}
