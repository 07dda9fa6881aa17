/** What a stranger sends as a question, checked field by field. */

import type { AskLimits, SteerEdit, SteerQuestion, TextQuestion } from "../explorer/shared/ask.ts";
import { EDIT_KINDS } from "../inference/edit-rows.ts";
import { UsageError } from "../util/errors.ts";
import { eitherOf, mustBe as mustBeGiven, numberInWords } from "../util/must.ts";

/**
 * Bounds of every question. Of tokens there may be fewer where the logits of so many would take too
 * much memory.
 */
export const LIMITS: AskLimits = { characters: 20_000, tokens: 512, edits: 16, continuation: 64, value: 1e6 };
/** Latents of which every value may be asked for. */
const MOST_LATENTS = 16;
const MOST_TEMPERATURE = 10;

/** Throws UsageError for anything but a `TextQuestion`. */
export function textQuestion(value: unknown): TextQuestion {
  const { text, latents, ...more } = objectOf(value, "the question");
  refuseMore(more);
  return { text: textOf(text), latents: listOf(latents ?? [], "latents", MOST_LATENTS).map(latentOf) };
}

/** Throws UsageError for anything but a `SteerQuestion`. */
export function steerQuestion(value: unknown): SteerQuestion {
  const { text, edits, continuation, ...more } = objectOf(value, "the question");
  refuseMore(more);
  const { tokens, seed, temperature, ...rest } = objectOf(continuation, "continuation");
  refuseMore(rest);
  return {
    text: textOf(text),
    edits: listOf(edits, "edits", LIMITS.edits).map(editOf),
    continuation: {
      tokens: numberOf(tokens, "continuation.tokens", 0, LIMITS.continuation, true),
      seed: numberOf(seed, "continuation.seed", 0, Number.MAX_SAFE_INTEGER, true),
      temperature: numberOf(temperature, "continuation.temperature", 0, MOST_TEMPERATURE),
    },
  };
}

function editOf(value: unknown): SteerEdit {
  const { latent, kind, value: to, positions, ...more } = objectOf(value, "an edit");
  refuseMore(more);
  const known = EDIT_KINDS.find((each) => each === kind);
  if (known === undefined) throw new UsageError(mustBe("an edit's kind", eitherOf(EDIT_KINDS), kind, EDIT_KINDS));
  return {
    latent: latentOf(latent),
    kind: known,
    value: numberOf(to, "an edit's value", -LIMITS.value, LIMITS.value),
    positions:
      positions === "all"
        ? positions
        : listOf(positions, "positions", LIMITS.tokens).map((each) =>
            numberOf(each, "a position", 0, LIMITS.tokens - 1, true),
          ),
  };
}

/** The value is not what it must be, or is missing. */
function mustBe(name: string, allowed: string, value: unknown, words: readonly string[] = []): string {
  return value === undefined ? `${name} is missing: it must be ${allowed}` : mustBeGiven(name, allowed, value, words);
}

type Fields = Readonly<Record<string, unknown>>;

function objectOf(value: unknown, name: string): Fields {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Fields;
  throw new UsageError(mustBe(name, "an object", value));
}

function refuseMore(more: Fields): void {
  const [name] = Object.keys(more);
  if (name !== undefined)
    throw new UsageError(`the question has an unknown field ${JSON.stringify(name.slice(0, 40))}`);
}

function listOf(value: unknown, name: string, most: number): readonly unknown[] {
  if (Array.isArray(value) && value.length <= most) return value;
  throw new UsageError(mustBe(name, `a list of at most ${most}`, value));
}

function textOf(value: unknown): string {
  if (typeof value !== "string") throw new UsageError(mustBe("text", "a text", value));
  if (value.length > LIMITS.characters)
    throw new UsageError(`the text has ${value.length} characters, but at most ${LIMITS.characters} are read`, {
      mend: "shorten it",
    });
  // Half a surrogate pair is no character; it would be none in a file either.
  return value.replaceAll(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");
}

const latentOf = (value: unknown): number => numberOf(value, "a latent", 0, 0xffff_fffe, true);

function numberOf(value: unknown, name: string, least: number, most: number, isWhole = false): number {
  if (typeof value === "number" && value >= least && value <= most && (!isWhole || Number.isInteger(value)))
    return value;
  throw new UsageError(mustBe(name, numberInWords({ least, most }, isWhole ? "whole number" : "number"), value));
}
