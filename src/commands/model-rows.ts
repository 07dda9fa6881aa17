/** Rows of a language model that computes them while they are trained on. */

import type { Source } from "../data/source.ts";
import type { ModelRows } from "../model-flags.ts";
import { createProgressLine } from "../util/progress.ts";
import { note } from "./note.ts";

/** Tokenises the text and opens the model. */
export async function openModelRows(rows: ModelRows): Promise<Source> {
  const { openModelSource } = await import("../harvest/model-source.ts");
  const line = createProgressLine({ label: "tokenize", total: undefined, unit: "tokens" });
  const source = await openModelSource({ ...rows, onProgress: ({ done }) => line.update(done) }).finally(() =>
    line.done(),
  );
  note("every epoch computes the activations again; saetta harvest writes them once, where the disk has room");
  return source;
}
