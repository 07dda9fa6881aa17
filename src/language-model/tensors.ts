/** Which tensors of a model can be harvested, and what a user may have meant. */

import { UsageError } from "../util/errors.ts";
import { cutAt, type OnnxGraph, tensorNames } from "./onnx-graph.ts";
import { openSession } from "./session.ts";
import { structureOf } from "./structure.ts";

/** A float tensor [batch, sequence, width] inside a model. */
export interface Candidate {
  readonly name: string;
  readonly shape: readonly ["batch", "sequence", number];
  /**
   * True where the tensor is the residual stream after an attention, a feed-forward part or a
   * block.
   */
  readonly residual: boolean;
}

/** Batch and sequence of the trial run: different, and unlike any width. */
const TRIAL = { batch: 2, context: 3 };

/**
 * The tensors that can be harvested, the residual stream first, then in the order of the graph. The
 * model is run once, on a few tokens.
 */
export async function listTensors(graph: OnnxGraph): Promise<Candidate[]> {
  const session = await openSession(cutAt(graph, tensorNames(graph)), graph.file, 1);
  try {
    const batch = session.fixed.batch ?? TRIAL.batch;
    const context = session.fixed.context ?? TRIAL.context;
    const possible = session.outputs.filter(
      ({ type, rank }) => /^float(16|32)$/.test(type) && (rank === undefined || rank === 3),
    );
    const { residual, width: stream } = structureOf(graph);
    const results = await session.run(
      new Int32Array(batch * context),
      batch,
      possible.map(({ name }) => name),
    );
    const found: Candidate[] = [];
    for (const [name, { shape }] of results) {
      const [rows, columns, width] = shape;
      if (shape.length !== 3 || rows !== batch || columns !== context || width === undefined) continue;
      found.push({
        name,
        shape: ["batch", "sequence", width],
        residual: residual.has(name) && width === (stream ?? width),
      });
    }
    return [...found.filter((it) => it.residual), ...found.filter((it) => !it.residual)];
  } finally {
    await session.close();
  }
}

/** Throws UsageError with the closest names unless `name` is a tensor of the graph. */
export function checkTensorName(graph: OnnxGraph, name: string): void {
  const names = tensorNames(graph);
  if (names.includes(name)) return;
  const close = closest(name, names).map((it) => `'${it}'`);
  throw new UsageError(
    `the model has no tensor '${name}'${close.length > 0 ? `; did you mean ${close.join(" or ")}?` : ""}`,
    {
      where: graph.file,
      mend: "--list-tensors shows them all",
    },
  );
}

const MAX_NAME = 200;

/** The three names closest to `text`: those that hold it, then by the least number of edits. */
function closest(text: string, names: readonly string[]): string[] {
  if (text.length > MAX_NAME) return [];
  const wanted = text.toLowerCase();
  const scored = names
    .filter((name) => name.length <= MAX_NAME)
    .map((name) => ({
      name,
      edits: name.toLowerCase().includes(wanted) ? 0 : editDistance(wanted, name.toLowerCase()),
    }));
  return scored
    .sort((a, b) => a.edits - b.edits)
    .slice(0, 3)
    .filter(({ edits }) => edits <= text.length / 2)
    .map(({ name }) => name);
}

/** Levenshtein's distance: insertions, deletions and replacements that make `a` into `b`. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
