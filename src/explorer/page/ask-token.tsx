/** What is known of one token: its strongest latents, and what the model expects next. */

import type { AskedToken, NextToken } from "../shared/ask.ts";
import type { LatentRow } from "../shared/source.ts";
import { Name } from "./label.tsx";
import { Tokens } from "./latent.tsx";
import { amount, bare, counted, figure, percent } from "./words.ts";

/** Latents of a list. */
const MOST = 12;

export interface LatentTools {
  /** What the features of the run say of a latent; undefined where nothing is known. */
  readonly rowOf: (latent: number) => LatentRow | undefined;
  /** Address of a latent's page; undefined where it has none. */
  readonly linkTo: (latent: number) => string | undefined;
  /** The latent that the text is shaded by. */
  readonly shaded: number | undefined;
  readonly shade: (latent: number) => void;
  readonly steer: (latent: number, value: number) => void;
}

export function TokenLatents({ token, tools }: { readonly token: AskedToken; readonly tools: LatentTools }) {
  const { text, codes, counted: counts, error, position } = token;
  return (
    <section aria-labelledby="token">
      <h2 id="token">
        Latents of “<span class="token">{bare(text)}</span>” <span class="muted">token {position}</span>
      </h2>
      <p class="note">
        {counts
          ? `${counted(codes.length, "latent")} active; the reconstruction is off by ${percent(error ?? 0)} of the activation's length.`
          : "Training leaves this token out: it has no latents and keeps its own activation."}
      </p>
      {codes.length > 0 && <LatentChoice latents={codes.slice(0, MOST)} tools={tools} />}
      {codes.length > MOST && <p class="note">and {counted(codes.length - MOST, "weaker one")}</p>}
    </section>
  );
}

export function NextOfToken({ token }: { readonly token: AskedToken }) {
  const { text, next, divergence, loss } = token;
  return (
    <section aria-labelledby="next">
      <h2 id="next">
        What comes after “<span class="token">{bare(text)}</span>”
      </h2>
      <p class="note">
        By the model as it is, and with the reconstruction in the place of all activations: divergence{" "}
        {amount(divergence)} nats
        {loss !== null && `, loss of the token that follows ${figure(loss.original)} → ${figure(loss.reconstruction)}`}.
      </p>
      <NextTokens next={next} names={["model", "reconstruction"]} />
    </section>
  );
}

/** Latents with their values: each shades the text, is steered, and leads to its page. */
export function LatentChoice({
  latents,
  tools,
}: {
  readonly latents: readonly (readonly [latent: number, value: number])[];
  readonly tools: LatentTools;
}) {
  const most = Math.max(...latents.map(([, value]) => value));
  const { rowOf, linkTo, shaded, shade, steer } = tools;
  return (
    <ol class="choice">
      {latents.map(([latent, value]) => {
        const row = rowOf(latent);
        const to = linkTo(latent);
        return (
          <li key={latent}>
            <button
              type="button"
              class="shade"
              aria-pressed={latent === shaded}
              title={`Shade the text by latent ${latent}`}
              onClick={() => shade(latent)}
            >
              <span class="number">{latent}</span>
              <span class="words">
                <Name name={row?.label?.name} /> <Tokens texts={(row?.on ?? []).slice(0, 4)} />
              </span>
              <Meter share={value / most} />
              <span class="value">{amount(value)}</span>
            </button>
            <button
              type="button"
              class="small"
              title={`Steer latent ${latent}`}
              aria-label={`Steer latent ${latent}`}
              onClick={() => steer(latent, value)}
            >
              steer
            </button>
            {to !== undefined && (
              <a href={to} aria-label={`Page of latent ${latent}`} title={`Page of latent ${latent}`}>
                page
              </a>
            )}
          </li>
        );
      })}
    </ol>
  );
}

/** The likeliest next tokens, before and after. */
export function NextTokens({
  next,
  names,
}: {
  readonly next: readonly NextToken[];
  readonly names: readonly [string, string];
}) {
  const most = Math.max(...next.flatMap(({ before, after }) => [before, after]));
  return (
    <table class="next">
      <thead>
        <tr>
          <th scope="col">token</th>
          <th scope="col">{names[0]}</th>
          <th scope="col">{names[1]}</th>
        </tr>
      </thead>
      <tbody>
        {next.map(({ text, before, after, logits }, i) => (
          <tr key={i}>
            <th scope="row">
              <span class="token">{bare(text)}</span>
            </th>
            <td title={`logit ${logits[0].toFixed(3)}`}>
              <Meter share={before / most} /> {percent(before)}
            </td>
            <td title={`logit ${logits[1].toFixed(3)}`}>
              <Meter share={after / most} /> {percent(after)}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Meter({ share }: { readonly share: number }) {
  return (
    <svg class="meter" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
      <rect class="plain" width={Math.max(0, Math.min(1, share)) * 100} height="10" />
    </svg>
  );
}
