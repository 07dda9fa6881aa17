/** Rows of a language model that computes them while they are trained on. */

import type { RowKeeper } from "../data/row-keeper.ts";
import type { Source } from "../data/source.ts";
import type { ModelRows } from "../model-flags.ts";
import { createProgressLine } from "../util/progress.ts";
import { note } from "./note.ts";

/** Tokenises the text and opens the model. `keep`: gets the rows that are computed. */
export async function openModelRows(rows: ModelRows, keep: RowKeeper | undefined): Promise<Source> {
  const { openModelSource } = await import("../harvest/model-source.ts");
  const line = createProgressLine({ label: "tokenize", total: undefined, unit: "tokens" });
  const source = await openModelSource({ ...rows, keep, onProgress: ({ done }) => line.update(done) }).finally(() =>
    line.done(),
  );
  note("every epoch computes the activations again; saetta harvest writes them once, where the disk has room");
  return source;
}
