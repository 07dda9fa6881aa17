/** Your own text: its tokens shaded by any latent, what each latent does there, and steering. */

import { useEffect, useMemo, useState } from "preact/hooks";
import type { AskAbout, AskedToken, TextAnswer, TextQuestion } from "../shared/ask.ts";
import type { LatentRow } from "../shared/source.ts";
import { AskClient } from "./ask-client.ts";
import { AskSteer, type EditFields } from "./ask-steer.tsx";
import { LatentChoice, type LatentTools, NextOfToken, TokenLatents } from "./ask-token.tsx";
import { AskTokens } from "./ask-tokens.tsx";
import { Legend } from "./charts.tsx";
import { Tokens } from "./latent.tsx";
import { useAnswer } from "./use-answer.ts";
import { amount, counted, figure, percent, visible, wholeBelow } from "./words.ts";

const EXAMPLE = "The old man looked out of the window and said that it would rain before the night was over.";
/** Milliseconds after the last key until the text is read. */
const PAUSE = 300;
/** Latents of the list of the whole text. */
const MOST = 12;

/** What the text is shaded by. */
type Shade = "latent" | "error" | "divergence";

const SHADES: Readonly<Record<Shade, string>> = {
  latent: "a latent",
  error: "reconstruction error",
  divergence: "change of the next token",
};

interface Shown {
  /** Of the run, as addresses have it. */
  readonly id: string;
}

export function Ask({ id }: Shown) {
  const client = useMemo(() => new AskClient(id), [id]);
  const [about, setAbout] = useState<AskAbout>();
  const [failure, setFailure] = useState<string>();
  useEffect(() => {
    client
      .about()
      .then(setAbout, (thrown: unknown) => setFailure(thrown instanceof Error ? thrown.message : String(thrown)));
  }, [client]);
  if (about !== undefined) return <AskText id={id} client={client} about={about} />;
  return (
    <div class="explorer ask">
      <div class="body">
        {failure === undefined ? (
          <p role="status">Opening the language model…</p>
        ) : (
          <>
            <h1>This cannot be asked</h1>
            <p role="alert">{failure}</p>
          </>
        )}
      </div>
    </div>
  );
}

function AskText({ id, client, about }: Shown & { readonly client: AskClient; readonly about: AskAbout }) {
  const { limits, latents, model, tensor, name } = about;
  const [text, setText] = useState(EXAMPLE);
  const [shade, setShade] = useState<Shade>("latent");
  const [latent, setLatent] = useState<number | undefined>(() => latentIn(location.hash, latents));
  const [chosen, setChosen] = useState(0);
  const [edits, setEdits] = useState<readonly EditFields[]>([]);
  const question: TextQuestion | undefined =
    text.trim() === "" ? undefined : { text, ...(latent !== undefined && { latents: [latent] }) };
  const { last, failure, isBusy } = useAnswer(question, client.text, PAUSE);
  const answer = last?.answer;
  const strongest = useMemo(() => strongestOf(answer?.tokens ?? []), [answer]);
  const shaded = latent ?? strongest[0]?.[0];
  const at = Math.min(chosen, (answer?.tokens.length ?? 1) - 1);
  const token = answer?.tokens[at];
  const { rowOf, hasFeatures } = useLatents(client, [
    ...strongest.map(([each]) => each),
    ...(token?.codes.slice(0, MOST).map(([each]) => each) ?? []),
    ...(shaded === undefined ? [] : [shaded]),
  ]);
  const shadeBy = (next: number | undefined) => {
    setLatent(next);
    setShade("latent");
    history.replaceState(null, "", next === undefined ? location.pathname : `#latent=${next}`);
  };
  const tools: LatentTools = {
    rowOf,
    linkTo: (each) => (hasFeatures ? `/features/${encodeURIComponent(id)}#latent=${each}` : undefined),
    shaded: shade === "latent" ? shaded : undefined,
    shade: shadeBy,
    steer: (each, value) => {
      const key = 1 + Math.max(0, ...edits.map((edit) => edit.key));
      const to = String(Number((2 * value).toPrecision(3)));
      setEdits(
        [...edits, { key, latent: String(each), kind: "set" as const, value: to, where: "all" as const }].slice(
          -limits.edits,
        ),
      );
    },
  };
  return (
    <div class="explorer ask">
      <div class="body">
        <h1>Try it on your own text</h1>
        <p class="muted">
          {visible(name)}: {counted(latents, "latent")} of {visible(tensor)} in {visible(shortPath(model))}
        </p>
        <label class="ask-label" for="text">
          Text
        </label>
        <textarea
          id="text"
          rows={3}
          maxLength={limits.characters}
          value={text}
          onInput={({ currentTarget }) => setText(currentTarget.value)}
        />
        {failure !== undefined && <p role="alert">{failure}</p>}
        <p class="note" role="status">
          {statusOf(answer, isBusy, question !== undefined)}
        </p>
        {answer !== undefined && (
          <>
            <div class="bar">
              <label>
                Shade by{" "}
                <select value={shade} onChange={({ currentTarget }) => setShade(currentTarget.value as Shade)}>
                  {Object.entries(SHADES).map(([value, words]) => (
                    <option key={value} value={value}>
                      {words}
                    </option>
                  ))}
                </select>
              </label>
              {shade === "latent" && (
                <label>
                  Latent{" "}
                  <input
                    class="latent-number"
                    type="number"
                    min={0}
                    max={latents - 1}
                    value={shaded ?? ""}
                    onInput={({ currentTarget }) => shadeBy(wholeBelow(currentTarget.value, latents))}
                  />
                </label>
              )}
              {shade === "latent" && shaded !== undefined && (
                <span class="words">
                  <Tokens texts={(rowOf(shaded)?.on ?? []).slice(0, 5)} />
                </span>
              )}
              <Legend most={(shade === "error" ? percent : amount)(scaleOf(answer.tokens, shade, shaded))} />
            </div>
            <AskTokens
              label="Tokens of the text"
              texts={answer.tokens.map((each) => each.text)}
              values={answer.tokens.map((each) => shadeOf(each, shade, shaded))}
              titles={answer.tokens.map((each) => titleOf(each, shade, shaded))}
              max={scaleOf(answer.tokens, shade, shaded)}
              chosen={at}
              choose={setChosen}
              isOut={(each) => answer.tokens[each]?.counted === false}
            />
            <p class="note">Choose a token by pointing, or with the arrow keys.</p>
            <div class="columns">
              {token !== undefined && <TokenLatents token={token} tools={tools} />}
              <div>
                {token !== undefined && <NextOfToken token={token} />}
                {strongest.length > 0 && (
                  <section aria-labelledby="strongest">
                    <h2 id="strongest">Latents that stand out in the text</h2>
                    <p class="note">By their largest value, times how rare they are in the text.</p>
                    <LatentChoice latents={strongest} tools={tools} />
                  </section>
                )}
              </div>
            </div>
            <AskSteer
              client={client}
              limits={limits}
              latents={latents}
              text={text}
              edits={edits}
              change={setEdits}
              token={token}
              at={at}
            />
          </>
        )}
      </div>
    </div>
  );
}

/** What the page knows of latents, asked for as they are shown. */
function useLatents(client: AskClient, wanted: readonly number[]) {
  const [known, setKnown] = useState<ReadonlyMap<number, LatentRow | undefined>>(new Map());
  const [hasFeatures, setHasFeatures] = useState(false);
  const missing = [...new Set(wanted)].filter((latent) => !known.has(latent));
  useEffect(() => {
    if (missing.length === 0) return;
    let isWanted = true;
    client.latents(missing).then(
      (found) => {
        if (!isWanted) return;
        const rows = new Map(found.rows.map((row) => [row.latent, row]));
        setHasFeatures(found.hasFeatures);
        setKnown((before) => new Map([...before, ...missing.map((latent) => [latent, rows.get(latent)] as const)]));
      },
      () => undefined, // latents are shown without words
    );
    return () => {
      isWanted = false;
    };
  }, [client, missing.join()]);
  return { rowOf: (latent: number) => known.get(latent), hasFeatures };
}

function statusOf(answer: TextAnswer | undefined, isBusy: boolean, isAsked: boolean): string {
  if (!isAsked) return "Type or paste a text.";
  if (answer === undefined) return isBusy ? "Reading…" : "";
  const { tokens, fvu, loss } = answer;
  const parts = [
    counted(tokens.length, "token"),
    ...(fvu === null ? [] : [`FVU ${figure(fvu)}`]),
    ...(loss === null ? [] : [`loss ${figure(loss.original)}, with the reconstruction ${figure(loss.reconstruction)}`]),
  ];
  return `${parts.join(", ")}${isBusy ? " …" : ""}`;
}

/**
 * The latents with the largest products of their largest value and ln(tokens / tokens on which they
 * fire), each with that value: what fires everywhere says little of a text.
 */
function strongestOf(tokens: readonly AskedToken[]): (readonly [latent: number, value: number])[] {
  const found = new Map<number, { readonly most: number; readonly fires: number }>();
  for (const { codes } of tokens) {
    for (const [latent, value] of codes) {
      const { most, fires } = found.get(latent) ?? { most: 0, fires: 0 };
      found.set(latent, { most: Math.max(value, most), fires: fires + 1 });
    }
  }
  return Array.from(
    found,
    ([latent, { most, fires }]) => [latent, most, most * Math.log(tokens.length / fires)] as const,
  )
    .toSorted((a, b) => b[2] - a[2] || a[0] - b[0])
    .slice(0, MOST)
    .map(([latent, most]) => [latent, most]);
}

function shadeOf(token: AskedToken, shade: Shade, latent: number | undefined): number {
  if (shade === "error") return token.error ?? 0;
  if (shade === "divergence") return token.divergence;
  return token.codes.find(([each]) => each === latent)?.[1] ?? 0;
}

function scaleOf(tokens: readonly AskedToken[], shade: Shade, latent: number | undefined): number {
  return Math.max(1e-9, ...tokens.map((each) => shadeOf(each, shade, latent)));
}

function titleOf(token: AskedToken, shade: Shade, latent: number | undefined): string {
  const value = shadeOf(token, shade, latent);
  if (shade === "error") return token.error === null ? "left out by training" : `off by ${percent(value)}`;
  return shade === "divergence" ? `${amount(value)} nats` : `latent ${latent}: ${amount(value)}`;
}

/** The last two parts of a path. */
function shortPath(path: string): string {
  return path.split(/[\\/]/).slice(-2).join("/");
}

/** The latent in an address such as "#latent=12". */
function latentIn(hash: string, latents: number): number | undefined {
  return wholeBelow(new URLSearchParams(hash.replace(/^#/, "")).get("latent") ?? "", latents);
}
