/**
 * Activations that are computed when they are read, as a Source: nothing is written, and any rows
 * can be computed again, so that order, hold-out and resume are those of a file.
 */

import { availableParallelism } from "node:os";
import type { RowKeeper } from "../data/row-keeper.ts";
import type { Origin, Source } from "../data/source.ts";
import { checkRows } from "../util/rows.ts";
import { type HarvestProgress, tokenize } from "./harvest.ts";
import { openModelRun } from "./model-run.ts";
import { checkText } from "./text.ts";

export interface ModelSourceOptions {
  readonly model: string;
  readonly text: string;
  readonly tensor: string;
  /** Tokens per context; default: what the model can take, at most 1024. */
  readonly context?: number | undefined;
  /** Gets the rows of every batch of contexts when they are computed for the first time. */
  readonly keep?: RowKeeper | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: HarvestProgress) => void) | undefined;
}

/**
 * Tokens that the model works on at a time. The same on every machine: which rows are computed
 * together is part of the order of rows.
 */
const TOKENS_AT_ONCE = 1024;

/**
 * The rows of `tensor` for all of the text, in float16 as `saetta harvest` writes them. Token ids
 * are held in memory, 4 bytes per row. Rejects as `harvest` does.
 */
export async function openModelSource(options: ModelSourceOptions): Promise<Source> {
  await checkText(options.text);
  const { tensor } = options;
  const run = await openModelRun({
    ...options,
    tensors: [tensor],
    dtype: "f16",
    threads: availableParallelism(),
    tokensAtOnce: TOKENS_AT_ONCE,
  });
  let ids: Int32Array;
  try {
    ids = await tokenize(options, run.tokenizer, run.context);
  } catch (thrown) {
    await run.close();
    throw thrown;
  }
  const { context, batch } = run;
  const dIn = run.widths[0]!;
  const rowBytes = 2 * dIn;
  const grain = batch * context;
  const origin: Origin = {
    model: run.model.path,
    modelSha256: run.model.sha256,
    tensor,
    tokenizer: run.tokenizer.path,
    startToken: run.tokenizer.startToken,
  };
  const { keep } = options;
  await keep?.begin({ width: dIn, dtype: "f16", context, origin });
  const kept = new Set<number>();
  /** The batch that was computed last: reads may end within one. */
  let last: { readonly batch: number; readonly bytes: Uint8Array } | undefined;
  const batchOf = async (number: number): Promise<Uint8Array> => {
    if (last?.batch === number) return last.bytes;
    const first = number * batch;
    const count = Math.min(batch, ids.length / context - first);
    const [bytes] = await run.states(ids, first, count);
    if (keep !== undefined && !kept.has(number)) {
      const tokens = ids.subarray(first * context, (first + count) * context);
      await keep.add({ rows: tokens.length, values: bytes!, tokens });
      kept.add(number);
    }
    last = { batch: number, bytes: bytes! };
    return bytes!;
  };
  let turn: Promise<unknown> = Promise.resolve();
  const where = `${options.model}, ${tensor}, on ${options.text}`;
  return {
    description: `${where}: ${ids.length.toLocaleString("en-US")} x ${dIn} f16`,
    paths: [],
    dIn,
    rows: ids.length,
    dtype: "f16",
    sequence: context,
    grain,
    computed: grain,
    origin,
    read(first, count, into, signal) {
      checkRows(first, count, ids.length);
      // The model is run by one caller at a time.
      const result = turn.then(async () => {
        for (let row = first; row < first + count; ) {
          signal?.throwIfAborted();
          const number = Math.floor(row / grain);
          const bytes = await batchOf(number);
          const from = row - number * grain;
          const rows = Math.min(first + count - row, bytes.length / rowBytes - from);
          into.set(bytes.subarray(from * rowBytes, (from + rows) * rowBytes), (row - first) * rowBytes);
          row += rows;
        }
      });
      turn = result.catch(() => undefined);
      return result;
    },
    tokens: async (first, count) => ids.slice(first, first + count),
    locate: (row) => `${where}: context ${Math.floor(row / context)}, position ${row % context}`,
    close: () => run.close(),
  };
}
