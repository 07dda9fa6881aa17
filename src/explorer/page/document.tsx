/** A whole text, shaded by one latent. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Document, ExplorerSource, Other } from "../shared/source.ts";
import { Name } from "./label.tsx";
import { Tokens } from "./latent.tsx";
import { hashOf, type Route } from "./route.ts";
import { amount, count, counted, level, visible } from "./words.ts";

interface Shown {
  readonly source: ExplorerSource;
  readonly route: Route;
  readonly document: number;
  readonly latent: Other & { readonly max: number };
  /** How often labels were changed on this page. */
  readonly changes: number;
  readonly onFailure: (thrown: unknown) => void;
}

export function DocumentView({ source, route, document, latent, changes, onFailure }: Shown) {
  const [found, setFound] = useState<{ readonly of: number; readonly document: Document }>();
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    let isWanted = true;
    source.document(document).then(
      (next) => isWanted && setFound({ of: document, document: next }),
      (thrown: unknown) => isWanted && onFailure(thrown),
    );
    return () => {
      isWanted = false;
    };
  }, [source, document, changes, onFailure]);
  const isThere = found?.of === document;
  useEffect(() => {
    if (isThere) heading.current?.focus();
  }, [isThere, document]);
  if (!isThere) return <p role="status">Loading…</p>;
  const { row, tokens, begin, latents, values, strongest } = found.document;
  const value = tokens.map((_, i) => {
    for (let at = begin[i]!; at < begin[i + 1]!; at++) if (latents[at] === latent.latent) return values[at]!;
    return 0;
  });
  const firings = value.filter((each) => each > 0).length;
  return (
    <article>
      <p class="eyebrow">
        Whole text, rows {count(row)} to {count(row + tokens.length - 1)}
      </p>
      <h1 ref={heading} tabIndex={-1}>
        Shaded by latent {latent.latent} <Name name={latent.name} />
      </h1>
      <p class="bar">
        <span>
          It fires on {count(firings)} of {counted(tokens.length, "token")} here.
        </span>
        <a href={hashOf({ ...route, document: undefined })}>Back to latent {latent.latent}</a>
      </p>
      <section aria-label="The text">
        <p class="whole">{shaded(tokens, value, latent.max)}</p>
      </section>
      <section aria-label="Strongest latents of this text">
        <h2>Strongest latents of this text</h2>
        <p class="note">By the sum of their values on it. Open one to shade the text by it.</p>
        <ol class="nearest">
          {strongest.map((other) => (
            <li key={other.latent}>
              <a
                href={hashOf({ ...route, latent: other.latent })}
                aria-current={other.latent === latent.latent ? "true" : undefined}
              >
                <span class="number">{other.latent}</span> <Name name={other.name} />
                <Tokens texts={other.on.slice(0, 4)} />
              </a>
            </li>
          ))}
        </ol>
      </section>
    </article>
  );
}

/** Text as it is where the latent does not fire. */
function shaded(tokens: readonly string[], values: readonly number[], max: number): ComponentChildren[] {
  const parts: ComponentChildren[] = [];
  let plain = "";
  for (const [i, token] of tokens.entries()) {
    const value = values[i] ?? 0;
    if (value === 0) {
      plain += shown(token);
      continue;
    }
    parts.push(
      plain,
      <mark key={i} class={`h${level(value, max)}`} title={amount(value)}>
        {shown(token)}
      </mark>,
    );
    plain = "";
  }
  return [...parts, plain];
}

/** Line ends stay what they are in a whole text. */
const shown = (token: string) => token.split("\n").map(visible).join("\n");
