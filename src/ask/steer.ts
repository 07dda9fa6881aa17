/** A text with latents at other values: the next token, and how the model writes on. */

import type { LogSums } from "../engine/log-sums.ts";
import type { SteerAnswer, SteerEdit, SteerQuestion } from "../explorer/shared/ask.ts";
import {
  activationIn,
  checkEditable,
  type Directions,
  directionsOf,
  edited,
  type RowEdit,
} from "../inference/edit-rows.ts";
import type { SparseCodes } from "../inference/sae.ts";
import { gather, scattered } from "../metrics/spliced-rows.ts";
import { UsageError } from "../util/errors.ts";
import { draw, nextTokens } from "./predictions.ts";
import { contextOfIds, contextsOf, LIKELIEST, type ModelContext, NO_CODES, piecesOf } from "./read-text.ts";
import type { Subject } from "./subject.ts";

/** Answers what edits of latents do to a text. `logSums` sums losses. */
export async function steer(
  subject: Subject,
  { text, edits, continuation }: SteerQuestion,
  logSums: LogSums,
): Promise<SteerAnswer> {
  const { model, sae } = subject;
  const { vocabulary } = model.spliced;
  const latents = [...new Set(edits.map(({ latent }) => latent))];
  checkEditable(sae, latents);
  const [context, ...more] = contextsOf(subject, text);
  if (context === undefined || more.length > 0 || context.length + continuation.tokens > model.context)
    throw new UsageError(
      `the text and ${continuation.tokens} new tokens do not fit one context of ${model.context} tokens`,
      { mend: "shorten the text or the continuation" },
    );
  checkPositions(context, edits);
  const plan: Plan = { subject, edits, directions: await directionsOf(sae, latents) };
  const { original, codes, logits } = await run(plan, context);
  const positions = Uint32Array.from({ length: context.length }, (_, at) => at);
  const before = await logSums.of(original, vocabulary, positions);
  const after = await logSums.of(logits, vocabulary, positions, { logits: original, logSums: before.logSums });
  const last = context.length - 1;
  const row = (values: Float32Array, sums: Float64Array) => ({
    logits: rowOf(values, vocabulary, last),
    logSum: sums[last]!,
  });
  const loss = (values: Float32Array, sums: Float64Array) => meanLoss(context, vocabulary, values, sums);
  const losses = { without: loss(original, before.logSums), with: loss(logits, after.logSums) };
  let counted = 0;
  return {
    tokens: piecesOf(model, context).map((piece, at) => {
      const isCounted = context.counted[at] === 1;
      const activations = edits.map(({ latent }) => (isCounted ? activationIn(codes, counted, latent) : 0));
      if (isCounted) counted++;
      return { text: piece, counted: isCounted, activations, divergence: after.divergence[at]! };
    }),
    next: nextTokens(row(original, before.logSums), row(logits, after.logSums), LIKELIEST, model.textOf),
    divergence: after.divergence[last]!,
    loss: losses.without === null || losses.with === null ? null : { without: losses.without, with: losses.with },
    continuation: await continued(plan, context, continuation, { original, logits }),
  };
}

/** What is run again for each token that is drawn. */
interface Plan {
  readonly subject: Subject;
  readonly edits: readonly SteerEdit[];
  readonly directions: Directions;
}

/**
 * `original`, `logits` [tokens, vocabulary]: without and with the edits; `codes`: of the rows that
 * count.
 */
interface Ran {
  readonly original: Float32Array;
  readonly codes: SparseCodes;
  readonly logits: Float32Array;
}

async function run({ subject, edits, directions }: Plan, { ids, counted }: ModelContext): Promise<Ran> {
  const { model, sae } = subject;
  const { spliced } = model;
  const { activations, logits: original } = await spliced.original(ids, 1);
  const rows = gather(activations, counted, spliced.width);
  const codes = rows.length === 0 ? NO_CODES : await sae.encode(rows);
  const tokenOf = Array.from(counted.keys()).filter((at) => counted[at] === 1);
  const changed = rows.length === 0 ? rows : edited(rows, codes, rowEdits(edits, tokenOf), directions);
  const logits = await spliced.spliced(ids, 1, scattered(activations, counted, spliced.width, changed));
  return { original, codes, logits };
}

/** `tokenOf`: which token a row is of. */
function rowEdits(edits: readonly SteerEdit[], tokenOf: readonly number[]): RowEdit[] {
  return edits.map(({ latent, kind, value, positions }) => {
    const chosen = positions === "all" ? undefined : new Set(positions);
    return { latent, kind, value, isIn: (row) => chosen === undefined || chosen.has(tokenOf[row]!) };
  });
}

/** Throws UsageError for a position that no edit can be at. */
function checkPositions({ length, counted }: ModelContext, edits: readonly SteerEdit[]): void {
  for (const position of edits.flatMap(({ positions }) => (positions === "all" ? [] : positions))) {
    if (position >= length)
      throw new UsageError(`there is no token ${position}; they are numbered from 0 to ${length - 1}`);
    if (counted[position] !== 1)
      throw new UsageError(`token ${position} has no latents: training leaves such tokens out`, {
        mend: "choose another token",
      });
  }
}

async function continued(
  plan: Plan,
  context: ModelContext,
  { tokens, seed, temperature }: SteerQuestion["continuation"],
  first: Pick<Ran, "original" | "logits">,
): Promise<SteerAnswer["continuation"]> {
  const { model, counts } = plan.subject;
  const { spliced, tokenizer } = model;
  const start = context.ids.slice(0, context.length);
  const write = async (logits: Float32Array, next: (context: ModelContext) => Promise<Float32Array>) => {
    const ids = Array.from(start);
    let now = logits;
    for (let step = 0; step < tokens; step++) {
      const id = draw(rowOf(now, spliced.vocabulary, ids.length - 1), temperature, seed, step);
      if (id === tokenizer.startToken) break; // the text ends here
      ids.push(id);
      if (step + 1 < tokens) now = await next(contextOfIds(model, counts, Int32Array.from(ids)));
    }
    return tokenizer.pieces(ids).slice(start.length);
  };
  return {
    without: await write(first.original, async ({ ids }) => (await spliced.original(ids, 1)).logits),
    with: await write(first.logits, async (longer) => (await run(plan, longer)).logits),
  };
}

function rowOf(logits: Float32Array, vocabulary: number, row: number): Float32Array {
  return logits.subarray(row * vocabulary, (row + 1) * vocabulary);
}

/** Mean of -ln p(next token) over the rows that count and have one; null where there is none. */
function meanLoss(
  { ids, length, counted }: ModelContext,
  vocabulary: number,
  logits: Float32Array,
  logSums: Float64Array,
): number | null {
  let sum = 0;
  let count = 0;
  for (let at = 0; at + 1 < length; at++) {
    if (counted[at] !== 1) continue;
    sum += logSums[at]! - logits[at * vocabulary + ids[at + 1]!]!;
    count++;
  }
  return count === 0 ? null : sum / count;
}
