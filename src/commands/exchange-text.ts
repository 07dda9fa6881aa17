import type { Exchange } from "../inference/exchange.ts";
import { kOf } from "../sae/architectures/index.ts";
import { snakeCase } from "../util/json.ts";
import { formatCount } from "../util/progress.ts";

/** What export and import print; `averaged`: which weights these are is worth saying. */
export function exchangeText(done: Exchange, json: boolean, averaged: boolean): string {
  if (json) return `${JSON.stringify(snakeCase(done), undefined, 2)}\n`;
  const { out, files, format, description, weights, verified } = done;
  const k = kOf(description.spec);
  const { dIn: d, n, dOut, untied = false } = description.dims;
  const widths = `${formatCount(d)} inputs${untied ? `, ${formatCount(dOut)} outputs` : ""}`;
  const kind = `${description.spec.architecture}${k === undefined ? "" : `, k = ${k}`}`;
  const lines = [
    `written      ${out}: ${files.join(", ")}`,
    `format       ${format}`,
    `${untied ? "transcoder " : "autoencoder"}  ${formatCount(n)} latents, ${widths}, ${kind}`,
    ...(averaged ? [`weights      ${weights === "ema" ? "running average (ema)" : "raw, of the last step"}`] : []),
  ];
  if (verified !== undefined) {
    const { rows, active, latents, output, ties } = verified;
    const tied = ties === 0 ? "" : `, ${ties} with latents of equal value in the last place`;
    const differ = `latents differ by at most ${latents.toExponential(1)}, reconstructions by ${output.toExponential(1)}`;
    lines.push(`verified     ${rows} rows, ${formatCount(active)} active latents${tied}: ${differ}, relative`);
  }
  return `${lines.join("\n")}\n`;
}
