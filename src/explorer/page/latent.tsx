/** One latent: first what it is about, in its text; then the figures. */

import { Fragment } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { FeatureSummary } from "../../run-files/feature-summary.ts";
import type { TokenBar, TokenEffect } from "../shared/format.ts";
import type { Label } from "../shared/labels.ts";
import type { ExplorerSource, Latent, Other } from "../shared/source.ts";
import { Histogram, Legend } from "./charts.tsx";
import { LabelView, Name } from "./label.tsx";
import type { Neighbours } from "./neighbours.ts";
import { Passages } from "./passages.tsx";
import { amount, bare, count, counted, nounOf, percent } from "./words.ts";

interface Shown {
  readonly latent: Latent;
  readonly summary: FeatureSummary;
  /** No latent was opened before it. */
  readonly isFirst: boolean;
  /** Those before and after it in the list; undefined for the second of two. */
  readonly neighbours: Neighbours | undefined;
  /** The address of another latent, and of it next to this one. */
  readonly linkTo: (latent: number) => string;
  readonly linkBeside: (latent: number) => string;
  /** The address of a whole text, shaded by this latent. */
  readonly linkToDocument: (document: number) => string;
  /** Another latent is shown next to it. */
  readonly isPaired: boolean;
  readonly relabel: ExplorerSource["relabel"];
  /** The label is another now. */
  readonly onLabel: (latent: number, label: Label) => void;
}

export function LatentView(shown: Shown) {
  const { latent, summary, isFirst, isPaired, neighbours, linkTo, linkBeside, relabel, onLabel } = shown;
  const [aligned, setAligned] = useState(true);
  const heading = useRef<HTMLHeadingElement>(null);
  // Opening another latent moves the focus there; when the page opens nothing is moved.
  useEffect(() => {
    if (!isFirst) heading.current?.focus();
  }, [latent.latent]);
  const { sequence, text } = summary;
  const passages = { max: latent.max, sequence, aligned, linkToDocument: shown.linkToDocument };
  const unit = text ? "token" : "row";
  const links = { latent, linkTo, linkBeside, isPaired };
  const of = { latent: latent.latent, isPaired };
  const label = <LabelView key={latent.latent} latent={latent} relabel={relabel} onLabel={onLabel} />;
  if (latent.firings === 0) {
    return (
      <article aria-label={isPaired ? `Latent ${latent.latent}` : undefined}>
        <Eyebrow text={`Latent ${latent.latent}`} neighbours={neighbours} />
        <h1 ref={heading} tabIndex={-1}>
          It never fires
        </h1>
        {label}
        <p class="lead">It has no value above 0 on the {counted(summary.rows, unit)} that were looked at.</p>
        <Nearest {...links} />
        <Effects latent={latent} isPaired={isPaired} />
      </article>
    );
  }
  return (
    <article aria-label={isPaired ? `Latent ${latent.latent}` : undefined}>
      <Eyebrow text={`Latent ${latent.latent} ${text ? "fires most on" : "fires on"}`} neighbours={neighbours} />
      <h1 ref={heading} tabIndex={-1}>
        {latent.on.length === 0 ? counted(latent.firings, unit) : <Tokens texts={latent.on} />}
      </h1>
      {label}
      {isFirst && <Lead text={text} />}
      <dl class="facts">
        <Fact
          name={`of ${unit}s`}
          value={percent(latent.density)}
          hint={`Density: it fires on ${count(latent.firings)} of ${counted(summary.rows, unit)}`}
        />
        {(text || sequence !== null) && (
          <Fact
            name={nounOf(latent.contexts, text ? "context" : "sequence")}
            value={count(latent.contexts)}
            hint={`Different ${text ? "sequences or documents" : "sequences"} in which it fires`}
          />
        )}
        <Fact name="maximum" value={amount(latent.max)} hint="Its largest value" />
        <Fact
          name="importance"
          value={percent(latent.importance)}
          hint="Share of the energy (sum of squared values) of all latents"
        />
      </dl>
      <section aria-label={titled(`Strongest ${text ? "passages" : "rows"}`, of)}>
        <div class="bar">
          <h2>Strongest {text ? "passages" : "rows"}</h2>
          {text && (
            <>
              <Legend most={amount(latent.max)} />
              <button type="button" aria-pressed={!aligned} onClick={() => setAligned(!aligned)}>
                Whole passages
              </button>
            </>
          )}
        </div>
        <Passages passages={latent.strongest} {...passages} />
        {text && (
          <p class="note">
            Each from another context, at most two on the same word. Point at a word for the latent's value on it.
          </p>
        )}
        {latent.documents !== undefined && latent.documents.length > 0 && (
          <p class="note">
            Whole texts in which it is strong:{" "}
            {latent.documents.map((document) => (
              <Fragment key={document}>
                <a href={shown.linkToDocument(document)}>text {document}</a>{" "}
              </Fragment>
            ))}
          </p>
        )}
      </section>
      <div class="columns">
        {latent.tokens.length > 0 && <TokenBars tokens={latent.tokens} {...of} />}
        <section aria-label={titled("How strongly it fires", of)}>
          <h2>How strongly it fires</h2>
          <Histogram histogram={latent.histogram} max={latent.max} />
          <p class="note">Each bar: how many of its {counted(latent.firings, "firing")} have that value.</p>
        </section>
        <Effects latent={latent} isPaired={isPaired} />
        <Nearest {...links} />
        <Together {...links} unit={unit} />
      </div>
      <section aria-label={titled("Weaker firings", of)}>
        <h2>Weaker firings</h2>
        <p class="note">
          Drawn at random from each range of values
          {text ? ", in contexts not shown above" : sequence === null ? "" : ", in sequences not shown above"}: what a
          latent does at its strongest is not all it does.
        </p>
        {latent.ranges
          .filter((range) => range.passages.length > 0)
          .map((range) => (
            <section key={range.from} class="range">
              <h3>
                {amount(range.from)} to {amount(Math.min(range.to, latent.max))}{" "}
                <span class="muted">
                  {counted(range.firings, "firing")}, {percent(range.firings / latent.firings)}
                </span>
              </h3>
              <Passages passages={range.passages} {...passages} />
            </section>
          ))}
      </section>
    </article>
  );
}

/** What the page shows, for a reader who meets one for the first time. */
function Lead({ text }: { readonly text: boolean }) {
  return (
    <p class="lead">
      {text ? "A language model turns each word into" : "Each row is"} a long list of numbers; a <dfn>latent</dfn> is
      one pattern that was found in {text ? "them" : "these lists"}. Here is where this one is strongest
      {text ? (
        <>
          : <strong>the deeper the orange, the more strongly it fires.</strong>
        </>
      ) : (
        "."
      )}
    </p>
  );
}

/** Which latent this is, and links to those before and after it in the list. */
function Eyebrow({ text, neighbours }: { readonly text: string } & Pick<Shown, "neighbours">) {
  return (
    <div class="over">
      <p class="eyebrow">{text}</p>
      {neighbours !== undefined && (
        <nav aria-label="Latents before and after it in the list">
          <Step name="Previous" sign="←" to={neighbours.previous} />
          <Step name="Next" sign="→" to={neighbours.next} />
        </nav>
      )}
    </div>
  );
}

function Step({ name, sign, to }: { readonly name: string; readonly sign: string; readonly to: string | undefined }) {
  const label = `${name} latent (${sign} key)`;
  return to === undefined ? (
    <span class="muted" aria-hidden="true">
      {sign}
    </span>
  ) : (
    <a href={to} aria-label={label} title={label} aria-keyshortcuts={sign === "←" ? "ArrowLeft" : "ArrowRight"}>
      {sign}
    </a>
  );
}

export function Tokens({ texts }: { readonly texts: readonly string[] }) {
  return (
    <>
      {texts.map((text, i) => (
        <span key={text}>
          {i > 0 && <span class="dot"> · </span>}
          <span class="token">{bare(text)}</span>
        </span>
      ))}
    </>
  );
}

function Fact({ name, value, hint }: { readonly name: string; readonly value: string; readonly hint: string }) {
  return (
    <div title={hint}>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

/** What a section is called, other than those of a latent next to it. */
function titled(title: string, { latent, isPaired }: { readonly latent: number; readonly isPaired: boolean }): string {
  return isPaired ? `${title}, latent ${latent}` : title;
}

interface TokensOf {
  readonly tokens: readonly TokenBar[];
  readonly latent: number;
  readonly isPaired: boolean;
}

function TokenBars({ tokens, ...of }: TokensOf) {
  const most = Math.max(...tokens.map(({ share }) => share));
  return (
    <section aria-label={titled("The tokens it fires on", of)}>
      <h2>The tokens it fires on</h2>
      <table class="tokens">
        <thead>
          <tr>
            <th scope="col">token</th>
            <th scope="col">share of its energy</th>
            <th scope="col">fires on</th>
          </tr>
        </thead>
        <tbody>
          {tokens.map(({ text, share, firings, occurrences }) => (
            <tr key={text}>
              <th scope="row">
                <span class="token">{bare(text)}</span>
              </th>
              <td>
                <svg class="meter" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
                  <rect class="plain" width={(share / most) * 100} height="10" />
                </svg>
                {percent(share)}
              </td>
              <td>
                {count(firings)} of {count(occurrences)}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Effects({ latent, isPaired }: Pick<Shown, "latent" | "isPaired">) {
  if (latent.promoted === null || latent.suppressed === null) return null;
  return (
    <section aria-label={titled("What it does to the next token", { latent: latent.latent, isPaired })}>
      <h2>What it does to the next token</h2>
      <div class="pair">
        <EffectList name="makes likelier" effects={latent.promoted} />
        <EffectList name="makes less likely" effects={latent.suppressed} />
      </div>
      <p class="note">
        Its direction through the model's final norm and unembedding: change of the logit. What later layers make of it
        is not in there.
      </p>
    </section>
  );
}

function EffectList({ name, effects }: { readonly name: string; readonly effects: readonly TokenEffect[] }) {
  return (
    <div>
      <h3>{name}</h3>
      <ol class="effects">
        {effects.map(({ text, effect }) => (
          <li key={`${text} ${effect}`}>
            <span class="token">{bare(text)}</span>{" "}
            <span class="muted">{`${effect > 0 ? "+" : "−"}${amount(Math.abs(effect))}`}</span>
          </li>
        ))}
      </ol>
    </div>
  );
}

type Links = Pick<Shown, "latent" | "linkTo" | "linkBeside" | "isPaired">;

/** A link to another latent, and one to both next to each other. */
function OtherLinks({ other, linkTo, linkBeside }: { readonly other: Other } & Omit<Links, "latent" | "isPaired">) {
  const label = `Show latent ${other.latent} next to it`;
  return (
    <>
      <a href={linkTo(other.latent)}>
        <span class="number">{other.latent}</span> <Name name={other.name} />
        <Tokens texts={other.on.slice(0, 4)} />
      </a>
      <a class="beside" href={linkBeside(other.latent)} aria-label={label} title={label}>
        ⇆
      </a>
    </>
  );
}

function Nearest({ latent, isPaired, ...links }: Links) {
  return (
    <section aria-label={titled("Nearest latents", { latent: latent.latent, isPaired })}>
      <h2>Nearest latents</h2>
      {latent.nearest.length === 0 ? (
        <p class="note">No other decoder row points its way.</p>
      ) : (
        <ol class="nearest">
          {latent.nearest.map((near) => (
            <li key={near.latent}>
              <OtherLinks other={near} {...links} /> <span class="muted">{near.cosine.toFixed(2)}</span>
            </li>
          ))}
        </ol>
      )}
      <p class="note">By the cosine of their decoder rows: 1 is the same direction, 0 an unrelated one.</p>
    </section>
  );
}

function Together({ latent, isPaired, unit, ...links }: Links & { readonly unit: string }) {
  const { together } = latent;
  if (together === undefined) return null;
  return (
    <section aria-label={titled("Fires together with", { latent: latent.latent, isPaired })}>
      <h2>Fires together with</h2>
      {together.length === 0 ? (
        <p class="note">No other latent fires with it more often than chance has it.</p>
      ) : (
        <ol class="nearest">
          {together.map((other) => (
            <li key={other.latent}>
              <OtherLinks other={other} {...links} />{" "}
              <span class="muted" title={`on ${counted(other.firings, unit)}`}>
                {amount(other.lift)} ×
              </span>
            </li>
          ))}
        </ol>
      )}
      <p class="note">
        Lift: how many times as often both fire on the same {unit} as they would if neither knew of the other. Those
        that say most about each other come first.
      </p>
    </section>
  );
}
