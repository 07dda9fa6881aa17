/** A text, token by token: latents, reconstruction error, the next token with and without it. */

import type { LogSums } from "../engine/log-sums.ts";
import type { AskedToken, TextAnswer, TextQuestion } from "../explorer/shared/ask.ts";
import { Packer } from "../harvest/pack.ts";
import { documentsIn } from "../harvest/text.ts";
import { checkEditable } from "../inference/edit-rows.ts";
import type { SparseCodes } from "../inference/sae.ts";
import { gather, scattered } from "../metrics/spliced-rows.ts";
import { bytesOf } from "../util/bytes.ts";
import { UsageError } from "../util/errors.ts";
import { nextTokens } from "./predictions.ts";
import type { OpenModel, Subject } from "./subject.ts";

/** Tokens of each prediction that are sent. */
export const LIKELIEST = 8;
/** Codes of an answer. Each token has at least its strongest. */
const MOST_CODES = 65_536;

/** Token ids of one run of the model. */
export interface ModelContext {
  /** As the model takes them: a model of one size has it filled up with start tokens. */
  readonly ids: Int32Array;
  /** Tokens that are the text's. */
  readonly length: number;
  /** 1 for each token of the text whose row training uses. */
  readonly counted: Uint8Array;
}

/** Text of each token of a context. */
export function piecesOf({ tokenizer }: OpenModel, { ids, length }: ModelContext): string[] {
  return tokenizer.pieces(ids.subarray(0, length));
}

/**
 * The contexts of a text, as `saetta harvest` makes them, and a last one that may be shorter.
 * Throws UsageError where there are no tokens, or too many.
 */
export function contextsOf({ model, about, counts }: Subject, text: string): ModelContext[] {
  const { context, tokenizer } = model;
  const packer = new Packer(context, tokenizer.startToken);
  for (const document of documentsIn(text)) packer.add(tokenizer.encode(document));
  const ids = packer.all();
  const { tokens } = about.limits;
  if (ids.length < 2) throw new UsageError("the text has no tokens", { mend: "type a sentence" });
  if (ids.length > tokens)
    throw new UsageError(`the text has ${ids.length} tokens, but at most ${tokens} are read`, { mend: "shorten it" });
  return Array.from({ length: Math.ceil(ids.length / context) }, (_, i) =>
    contextOfIds(model, counts, ids.slice(i * context, (i + 1) * context)),
  );
}

export function contextOfIds(model: OpenModel, counts: Subject["counts"], ids: Int32Array): ModelContext {
  const filled = new Int32Array(Math.max(ids.length, model.fixed ?? 0)).fill(model.tokenizer.startToken);
  filled.set(ids);
  return {
    ids: filled,
    length: ids.length,
    counted: Uint8Array.from(filled, (id, at) => (at < ids.length && counts(id, at) ? 1 : 0)),
  };
}

/** Answers a question about a text. `logSums` sums losses. */
export async function readText(
  subject: Subject,
  { text, latents = [] }: TextQuestion,
  logSums: LogSums,
): Promise<TextAnswer> {
  checkEditable(subject.sae, latents);
  const contexts = contextsOf(subject, text);
  const shownPerToken = Math.max(1, Math.floor(MOST_CODES / contexts.reduce((sum, { length }) => sum + length, 0)));
  const parts: ContextAnswer[] = [];
  for (const context of contexts) parts.push(await readContext(subject, context, logSums, shownPerToken, latents));
  const tokens = parts.flatMap((part) => part.tokens);
  const losses = tokens.flatMap(({ loss, counted }) => (counted && loss !== null ? [loss] : []));
  const mean = (of: "original" | "reconstruction") => losses.reduce((sum, loss) => sum + loss[of], 0) / losses.length;
  return {
    tokens,
    fvu: fvuOf(parts),
    loss: losses.length === 0 ? null : { original: mean("original"), reconstruction: mean("reconstruction") },
    complete: parts.every(({ complete }) => complete),
  };
}

interface ContextAnswer {
  readonly tokens: readonly AskedToken[];
  readonly complete: boolean;
  /** Of the rows that count. */
  readonly rows: Float32Array;
  readonly output: Float32Array;
  readonly width: number;
}

async function readContext(
  { model, sae }: Subject,
  context: ModelContext,
  logSums: LogSums,
  shown: number,
  latents: readonly number[],
): Promise<ContextAnswer> {
  const { ids, length, counted } = context;
  const { spliced } = model;
  const { width, vocabulary } = spliced;
  const { activations, logits } = await spliced.original(ids, 1);
  const rows = gather(activations, counted, width);
  const count = rows.length / width;
  const { codes, output } =
    count === 0 ? { codes: NO_CODES, output: rows } : await sae.reconstructRaw(bytesOf(rows), "f32", count);
  const after = await spliced.spliced(ids, 1, scattered(activations, counted, width, output));
  const positions = Uint32Array.from({ length }, (_, at) => at);
  const before = await logSums.of(logits, vocabulary, positions);
  const compared = await logSums.of(after, vocabulary, positions, { logits, logSums: before.logSums });
  const rowOf = (values: Float32Array, sums: Float64Array, at: number) => ({
    logits: values.subarray(at * vocabulary, (at + 1) * vocabulary),
    logSum: sums[at]!,
  });
  let complete = true;
  let row = 0;
  const tokens = piecesOf(model, context).map((text, at): AskedToken => {
    const [first, second] = [rowOf(logits, before.logSums, at), rowOf(after, compared.logSums, at)];
    const next = ids[at + 1];
    const isCounted = counted[at] === 1;
    const all = isCounted ? codesIn(codes, row) : [];
    const strongest = all.slice(0, shown);
    if (strongest.length < all.length) complete = false;
    const wanted = all.slice(shown).filter(([latent]) => latents.includes(latent));
    const error = isCounted ? errorOf(rows, output, width, row) : null;
    if (isCounted) row++;
    return {
      text,
      position: at,
      counted: isCounted,
      error,
      codes: [...strongest, ...wanted],
      next: nextTokens(first, second, LIKELIEST, model.textOf),
      divergence: compared.divergence[at]!,
      loss:
        at + 1 < length && next !== undefined
          ? { original: first.logSum - first.logits[next]!, reconstruction: second.logSum - second.logits[next]! }
          : null,
    };
  });
  return { tokens, complete, rows, output, width };
}

export const NO_CODES: SparseCodes = { k: 1, latent: new Uint32Array(0), value: new Float32Array(0) };

/** The active latents of a row with their values, the strongest first. */
export function codesIn({ k, latent, value }: SparseCodes, row: number): (readonly [number, number])[] {
  const found: (readonly [number, number])[] = [];
  for (let slot = row * k; slot < (row + 1) * k; slot++)
    if (value[slot] !== 0) found.push([latent[slot]!, value[slot]!]);
  return found.toSorted((a, b) => b[1] - a[1] || a[0] - b[0]);
}

/** |x - x̂| / |x|. */
function errorOf(rows: Float32Array, output: Float32Array, width: number, row: number): number {
  let off = 0;
  let size = 0;
  for (let i = row * width; i < (row + 1) * width; i++) {
    off += (rows[i]! - output[i]!) ** 2;
    size += rows[i]! ** 2;
  }
  return size === 0 ? 0 : Math.sqrt(off / size);
}

function fvuOf(parts: readonly ContextAnswer[]): number | null {
  const width = parts[0]?.width ?? 0;
  const count = parts.reduce((sum, { rows }) => sum + rows.length / width, 0);
  const mean = new Float64Array(width);
  for (const { rows } of parts) for (let i = 0; i < rows.length; i++) mean[i % width]! += rows[i]! / count;
  let off = 0;
  let spread = 0;
  for (const { rows, output } of parts) {
    for (let i = 0; i < rows.length; i++) {
      off += (rows[i]! - output[i]!) ** 2;
      spread += (rows[i]! - mean[i % width]!) ** 2;
    }
  }
  return spread === 0 ? null : off / spread;
}
