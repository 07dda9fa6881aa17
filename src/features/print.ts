/** Latents in their text, for people. */

import { counted, formatCount, formatPercent } from "../util/format.ts";
import { bare, visible } from "../util/visible.ts";
import type { ReportWithFeatures, ShownFeature } from "./in-text.ts";

export interface Page {
  /** Characters a line. */
  readonly columns: number;
  /** Whether the terminal can set the activating token in bold; else it stands between ›‹. */
  readonly bold: boolean;
}

/** The page for a stream: its width, and bold on a terminal unless NO_COLOR is set. */
export function pageOf(stream: { readonly isTTY?: boolean; readonly columns?: number }): Page {
  const bold = stream.isTTY === true && (process.env.NO_COLOR ?? "") === "" && process.env.TERM !== "dumb";
  return { columns: Math.min(160, Math.max(60, stream.columns ?? 110)), bold };
}

/**
 * The latents of a report, and why there are no more of them; undefined where none were asked for.
 */
export function featuresText({ features, featuresNote }: ReportWithFeatures, page: Page): string | undefined {
  const parts =
    features.length === 0 ? [] : [featureHead(features), ...features.map((each) => featureLines(each, page))];
  if (featuresNote !== null) parts.push([featuresNote]);
  return parts.length === 0 ? undefined : parts.map((lines) => lines.join("\n")).join("\n\n");
}

function featureHead(features: readonly ShownFeature[]): string[] {
  return [
    features.length === 1 ? "a latent in its text" : `${features.length} latents in their text`,
    "  the most readable of as many bands of density; the strongest firings of each in different contexts,",
    "  at most two on the same token; the value of the latent on the marked token in front;",
    "  on: the tokens with most of its energy, each with firings / occurrences",
  ];
}

function featureLines(
  { latent, density, firings, contexts, energyShare, tokens, examples, label }: ShownFeature,
  page: Page,
): string[] {
  const head = `latent ${latent}   fires on ${formatPercent(density)} of the tokens (${formatCount(firings)}, in ${counted(contexts, "context")}), ${formatPercent(energyShare)} of all energy`;
  const lines = [page.bold ? `\u001b[1m${head}\u001b[22m` : head];
  if (label !== null && label.name !== "") lines.push(`  name: ${takeStart(visible(label.name), page.columns - 8)}`);
  if (label !== null && label.note !== "") lines.push(`  note: ${takeStart(visible(label.note), page.columns - 8)}`);
  lines.push(`  on: ${clipList(usesOf(tokens), page.columns - 6)}`);
  // The marked tokens stand below each other, as in a concordance.
  const width = Math.floor((page.columns - 12 - Math.max(...examples.map(({ token }) => visible(token).length))) / 2);
  for (const { value, before, token, after } of examples) {
    const shown = visible(token);
    const space = shown.startsWith(" ") ? " " : "";
    const left = takeEnd(`${visible(before)}${space}`, width);
    const right = takeStart(visible(after), width);
    const marked = page.bold ? `\u001b[1m${shown.trimStart()}\u001b[22m` : `›${shown.trimStart()}‹`;
    lines.push(`  ${value.toFixed(2).padStart(6)}  ${left.padStart(width)}${marked}${right}`.trimEnd());
  }
  return lines;
}

/** "can 19/19": 19 firings on 19 occurrences. */
function usesOf(tokens: ShownFeature["tokens"]): string[] {
  return tokens.map(({ text, firings, occurrences }) => `${bare(text)} ${firings}/${occurrences}`);
}

function takeEnd(text: string, width: number): string {
  const chars = [...text];
  return chars.length <= width ? text : `…${chars.slice(chars.length - width + 1).join("")}`;
}

function takeStart(text: string, width: number): string {
  const chars = [...text];
  return chars.length <= width ? text : `${chars.slice(0, width - 1).join("")}…`;
}

/** As many items as fit, at least one. */
function clipList(items: readonly string[], width: number): string {
  let text = items[0] ?? "";
  for (const item of items.slice(1)) {
    if (text.length + 3 + item.length > width) break;
    text += `   ${item}`;
  }
  return text;
}
