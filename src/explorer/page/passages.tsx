/** Passages of text, shaded by how strongly the latent fires on each token. */

import type { ComponentChildren } from "preact";
import type { Passage } from "../shared/source.ts";
import { amount, count, joined, level, visible } from "./words.ts";

interface Shown {
  readonly passages: readonly Passage[];
  /** The latent's maximum. */
  readonly max: number;
  /** Rows a sequence, where there are sequences. */
  readonly sequence: number | null;
  /** One line each, with the tokens that fire below each other; else whole and wrapped. */
  readonly aligned: boolean;
  /** The address of the whole text of a passage. */
  readonly linkToDocument: (document: number) => string;
}

export function Passages({ passages, max, sequence, aligned, linkToDocument }: Shown) {
  return (
    <ol class={aligned ? "passages aligned" : "passages"}>
      {passages.map(joined).map((passage) => (
        <li key={passage.row}>
          <span class="value" title={placeOf(passage.row, sequence)}>
            {passage.document === undefined ? (
              amount(passage.value)
            ) : (
              <a
                href={linkToDocument(passage.document)}
                aria-label={`${amount(passage.value)}: show the whole text`}
                title={`Show the whole text; ${placeOf(passage.row, sequence)}`}
              >
                {amount(passage.value)}
              </a>
            )}
          </span>
          {passage.tokens.length === 0 ? (
            <span class="muted">{placeOf(passage.row, sequence)}</span>
          ) : (
            <span class="text">
              <span class="before">
                <span>{tokensOf(passage, 0, passage.at, max)}</span>
              </span>
              <span class="peak">
                <Token text={passage.tokens[passage.at] ?? ""} value={passage.value} max={max} peak />
              </span>
              <span class="after">{tokensOf(passage, passage.at + 1, passage.tokens.length, max)}</span>
            </span>
          )}
        </li>
      ))}
    </ol>
  );
}

/** Tokens [first, end): text as it is where the latent does not fire. */
function tokensOf({ tokens, values }: Passage, first: number, end: number, max: number): ComponentChildren[] {
  const parts: ComponentChildren[] = [];
  let plain = "";
  for (let i = first; i < end; i++) {
    const value = values[i] ?? 0;
    if (value === 0) {
      plain += visible(tokens[i] ?? "");
      continue;
    }
    parts.push(plain, <Token key={i} text={tokens[i] ?? ""} value={value} max={max} />);
    plain = "";
  }
  parts.push(plain);
  return parts;
}

/** A token on which the latent fires; the space before it is not shaded. */
function Token({
  text,
  value,
  max,
  peak,
}: {
  readonly text: string;
  readonly value: number;
  readonly max: number;
  readonly peak?: true;
}) {
  const shown = visible(text);
  const word = shown.trimStart() === "" ? shown : shown.trimStart();
  const about = { class: `h${level(value, max)}`, title: amount(value) };
  return (
    <>
      {shown.slice(0, shown.length - word.length)}
      {peak ? <mark {...about}>{word}</mark> : <span {...about}>{word}</span>}
    </>
  );
}

function placeOf(row: number, sequence: number | null): string {
  if (sequence === null) return `row ${count(row)}`;
  return `row ${count(row)} (sequence ${count(Math.floor(row / sequence))}, position ${row % sequence})`;
}
