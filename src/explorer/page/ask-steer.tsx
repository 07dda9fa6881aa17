/** Latents at other values: what the model says next, with and without. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { AskedToken, AskLimits, EditKind, SteerAnswer, SteerEdit, SteerQuestion } from "../shared/ask.ts";
import type { AskClient } from "./ask-client.ts";
import { NextTokens } from "./ask-token.tsx";
import { useAnswer } from "./use-answer.ts";
import { amount, bare, figure, visible, wholeBelow } from "./words.ts";

/** Milliseconds after the last change until the model runs. */
const PAUSE = 500;

/** Characters of the text before its continuation. */
const SHOWN = 60;

const KINDS: Readonly<Record<EditKind, string>> = {
  set: "set to",
  add: "add, times its direction,",
  remove: "remove",
};

/** Numbers as they stand in their fields. */
export interface EditFields {
  /** Tells one edit from another on the page. */
  readonly key: number;
  readonly latent: string;
  readonly kind: EditKind;
  readonly value: string;
  /** A token's number, or every token. */
  readonly where: "all" | number;
}

interface Shown {
  readonly client: AskClient;
  readonly limits: AskLimits;
  readonly latents: number;
  readonly text: string;
  readonly edits: readonly EditFields[];
  readonly change: (edits: readonly EditFields[]) => void;
  /** The token that is chosen above, where latents can be edited there. */
  readonly token: AskedToken | undefined;
  readonly at: number;
}

export function AskSteer({ client, limits, latents, text, edits, change, token, at }: Shown) {
  const [tokens, setTokens] = useState("20");
  const [temperature, setTemperature] = useState("0.7");
  const [seed, setSeed] = useState("1");
  const asked = edits.map((edit) => editOf(edit, latents, limits));
  const known = asked.filter((edit) => edit !== undefined);
  const continuation = {
    tokens: wholeBelow(tokens, limits.continuation + 1),
    temperature: numberIn(temperature, 0, 10),
    seed: wholeBelow(seed, 1e9),
  };
  const isWhole = Object.values(continuation).every((value) => value !== undefined) && known.length === asked.length;
  const question =
    text.trim() === "" || known.length === 0 || !isWhole
      ? undefined
      : ({ text, edits: known, continuation } as SteerQuestion);
  const { last, failure, isBusy } = useAnswer(question, client.steer, PAUSE);
  const set = (key: number, part: Partial<EditFields>) =>
    change(edits.map((edit) => (edit.key === key ? { ...edit, ...part } : edit)));
  const add = () => {
    const key = 1 + Math.max(0, ...edits.map((edit) => edit.key));
    change([...edits, { key, latent: "", kind: "set", value: "10", where: "all" }]);
  };
  const list = useRef<HTMLOListElement>(null);
  const before = useRef(edits.length);
  // A new edit is where one goes on.
  useEffect(() => {
    const fields = list.current?.lastElementChild?.querySelectorAll("input");
    if (edits.length > before.current) fields?.[edits.at(-1)?.latent === "" ? 0 : fields.length - 1]?.focus();
    before.current = edits.length;
  }, [edits.length]);
  return (
    <section class="steer" aria-labelledby="steer">
      <h2 id="steer">Turn latents up and down</h2>
      <p class="note">
        The model runs again with the latent at another value. What the autoencoder does not reconstruct stays as it is.
      </p>
      <ol class="edits" ref={list}>
        {edits.map((edit, i) => (
          <li key={edit.key}>
            <fieldset>
              <legend class="hidden">Edit {i + 1}</legend>
              <label>
                Latent{" "}
                <input
                  class="latent-number"
                  type="number"
                  min={0}
                  max={latents - 1}
                  value={edit.latent}
                  onInput={({ currentTarget }) => set(edit.key, { latent: currentTarget.value })}
                />
              </label>
              <select
                aria-label="What happens to it"
                value={edit.kind}
                onChange={({ currentTarget }) => set(edit.key, { kind: currentTarget.value as EditKind })}
              >
                {Object.entries(KINDS).map(([kind, words]) => (
                  <option key={kind} value={kind}>
                    {words}
                  </option>
                ))}
              </select>
              {edit.kind !== "remove" && (
                <input
                  class="latent-value"
                  type="number"
                  step="any"
                  aria-label="Value"
                  value={edit.value}
                  onInput={({ currentTarget }) => set(edit.key, { value: currentTarget.value })}
                />
              )}
              <span aria-hidden="true">on</span>
              <select
                aria-label="On which tokens"
                value={String(edit.where)}
                onChange={({ currentTarget }) =>
                  set(edit.key, { where: currentTarget.value === "all" ? "all" : Number(currentTarget.value) })
                }
              >
                <option value="all">all tokens, new ones too</option>
                {placesOf(edit.where, token, at).map(([place, words]) => (
                  <option key={place} value={String(place)}>
                    {words}
                  </option>
                ))}
              </select>
              <button
                type="button"
                class="small"
                aria-label={`Take edit ${i + 1} away`}
                onClick={() => change(edits.filter(({ key }) => key !== edit.key))}
              >
                ×
              </button>
              {asked[i] === undefined && <span class="note">{faultOf(edit, latents, limits)}</span>}
            </fieldset>
          </li>
        ))}
      </ol>
      <div class="bar">
        <button type="button" disabled={edits.length >= limits.edits} onClick={add}>
          Add a latent
        </button>
        <label>
          Write{" "}
          <input
            class="few"
            type="number"
            min={0}
            max={limits.continuation}
            value={tokens}
            onInput={({ currentTarget }) => setTokens(currentTarget.value)}
          />{" "}
          more tokens
        </label>
        <label>
          temperature{" "}
          <input
            class="few"
            type="number"
            min={0}
            max={10}
            step="any"
            value={temperature}
            onInput={({ currentTarget }) => setTemperature(currentTarget.value)}
          />
        </label>
        <label>
          seed{" "}
          <input
            class="few"
            type="number"
            min={0}
            value={seed}
            onInput={({ currentTarget }) => setSeed(currentTarget.value)}
          />
        </label>
      </div>
      {failure !== undefined && <p role="alert">{failure}</p>}
      <p class="note" role="status">
        {question === undefined
          ? known.length === 0
            ? "Choose “steer” next to a latent, or add one."
            : ""
          : isBusy
            ? "The model writes…"
            : ""}
      </p>
      {last !== undefined && <Steered answer={last.answer} text={last.question.text} isOld={isBusy} />}
    </section>
  );
}

function Steered({
  answer,
  text,
  isOld,
}: {
  readonly answer: SteerAnswer;
  readonly text: string;
  readonly isOld: boolean;
}) {
  const { next, divergence, loss, continuation } = answer;
  const whole = text.trimEnd();
  const end = whole.length > SHOWN ? whole.slice(-SHOWN).replace(/^\S*\s/, "… ") : whole;
  const sides = [
    ["Without the edits", continuation.without, loss?.without],
    ["With the edits", continuation.with, loss?.with],
  ] as const;
  return (
    <div class={isOld ? "columns old" : "columns"}>
      {sides.map(([name, pieces, value], side) => (
        <div key={name}>
          <h3>{name}</h3>
          <p class="written">
            <span class="muted">{visible(end)}</span>
            {pieces.map((piece, i) => (
              <span key={i} class={side === 1 && piece !== continuation.without[i] ? "other" : undefined}>
                {visible(piece)}
              </span>
            ))}
          </p>
          {value !== undefined && <p class="note">Loss of the text {figure(value)}</p>}
        </div>
      ))}
      <div class="both">
        <h3>What comes after the text</h3>
        <NextTokens next={next} names={["without", "with"]} />
        <p class="note">Divergence {amount(divergence)} nats. Both draw with the same random numbers.</p>
      </div>
    </div>
  );
}

/** The tokens that an edit can be on: the one that it is on, and the one that is chosen. */
function placesOf(
  where: EditFields["where"],
  token: AskedToken | undefined,
  at: number,
): (readonly [number, string])[] {
  const chosen = token?.counted ? [[at, `token ${at}, “${bare(token.text)}”`] as const] : [];
  return where === "all" || where === at ? chosen : [[where, `token ${where}`], ...chosen];
}

/** The edit, or undefined where a field has no number. */
function editOf({ latent, kind, value, where }: EditFields, latents: number, limits: AskLimits): SteerEdit | undefined {
  const number = wholeBelow(latent, latents);
  const to = kind === "remove" ? 0 : numberIn(value, -limits.value, limits.value);
  if (number === undefined || to === undefined) return undefined;
  return { latent: number, kind, value: to, positions: where === "all" ? where : [where] };
}

function faultOf({ latent }: EditFields, latents: number, limits: AskLimits): string {
  if (wholeBelow(latent, latents) === undefined) return `Latents are numbered from 0 to ${latents - 1}.`;
  return `The value is a number of at most ${amount(limits.value)}.`;
}

function numberIn(text: string, least: number, most: number): number | undefined {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  return value >= least && value <= most ? value : undefined;
}
