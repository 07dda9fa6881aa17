/**
 * README.md of a repo on the Hub: what the autoencoder is, how good, how it was trained and used.
 */

import type { FormatName } from "../interchange/format.ts";
import { kOf } from "../sae/architectures/index.ts";
import type { SaeDescription } from "../sae/description.ts";
import { formatCount, formatDuration } from "../util/format.ts";
import { VERSION } from "../util/version.ts";

/** By this line a card is known as one that may be written again. */
export const CARD_MARK = "<!-- written by saetta push; delete this line to keep what you change -->";

/** The library by which the Hub finds who can read the files. */
const LIBRARY: Readonly<Record<FormatName, string>> = {
  saelens: "saelens",
  sparsify: "sparsify",
  dictionary_learning: "dictionary_learning",
  circuit_tracer: "circuit-tracer",
  openai: "saetta",
};

export interface CardFacts {
  /** "org/name". */
  readonly repo: string;
  /** The folder in the repo; "" for its root. */
  readonly path: string;
  readonly format: FormatName;
  readonly description: SaeDescription;
  /** "org/name" of the language model at the Hub, where the user named it. */
  readonly baseModel: string | undefined;
  /** Of a run; undefined for an autoencoder of none. */
  readonly trained: TrainedFacts | undefined;
}

export interface TrainedFacts {
  readonly fvu: number | undefined;
  readonly l0: number | undefined;
  readonly dead: number | undefined;
  readonly tokens: number | undefined;
  readonly seconds: number | undefined;
  /** Options as config.json has them, without paths. */
  readonly options: readonly (readonly [name: string, value: string])[];
}

export function cardOf(facts: CardFacts): string {
  const { repo, format, description, baseModel, trained } = facts;
  const { spec, saetta, dims } = description;
  const kind = dims.untied === true ? "transcoder" : "autoencoder";
  const tags = [`sparse-${kind}`, "mechanistic-interpretability", "saetta", spec.architecture];
  const head = [
    `library_name: ${LIBRARY[format]}`,
    ...(baseModel === undefined ? [] : [`base_model: ${baseModel}`]),
    "tags:",
    ...tags.map((tag) => `- ${tag}`),
  ];
  const k = kOf(spec);
  const widths = `${formatCount(dims.n)} latents, ${formatCount(dims.dIn)} inputs`;
  const outputs = dims.untied === true ? `, ${formatCount(dims.dOut)} outputs` : "";
  const of = [saetta?.tensor, baseModel ?? lastPart(saetta?.model)].filter((each) => each !== undefined);
  const rows = of.length === 0 ? "" : ` of ${of.map((each) => `\`${plain(each)}\``).join(" in ")}`;
  return [
    ...["---", ...head, "---", CARD_MARK, ""],
    ...[`# ${repo.split("/")[1]}`, ""],
    `A sparse ${kind}${rows}: ${spec.architecture}, ${widths}${outputs}${k === undefined ? "" : `, k = ${k}`}.`,
    ...["", ...(trained === undefined ? [] : trainedText(trained))],
    ...useText(facts),
    "",
  ].join("\n");
}

function trainedText({ fvu, l0, dead, tokens, seconds, options }: TrainedFacts): string[] {
  const figures = (
    [
      ["variance that is not explained (FVU), held-out rows", fvu?.toPrecision(4)],
      ["active latents per row (L0)", l0 === undefined ? undefined : Number(l0.toPrecision(4)).toString()],
      ["dead latents", dead === undefined ? undefined : formatCount(dead)],
      ["rows trained on", tokens === undefined ? undefined : formatCount(tokens)],
      ["time", seconds === undefined ? undefined : formatDuration(seconds)],
    ] as const
  ).filter(([, value]) => value !== undefined);
  return [
    ...["## Figures", "", "| | |", "| --- | --- |", ...figures.map(([name, value]) => `| ${name} | ${value} |`), ""],
    ...["## How it was trained", "", `With Saetta ${VERSION}.`, "", "| option | value |", "| --- | --- |"],
    ...[...options.map(([name, value]) => `| \`${name}\` | ${plain(value)} |`), ""],
  ];
}

function useText({ repo, path, format }: CardFacts): string[] {
  const address = `hf://${repo}${path === "" ? "" : `/${path}`}`;
  const shell = ["## Use", "", "```sh", `saetta inspect ${address}`, `saetta eval ${address} acts.h5`, "```"];
  if (format !== "saelens") return shell;
  const load =
    path === ""
      ? [
          "from huggingface_hub import snapshot_download",
          "from sae_lens import SAE",
          "",
          `sae = SAE.load_from_disk(snapshot_download("${repo}"))`,
        ]
      : ["from sae_lens import SAE", "", `sae = SAE.from_pretrained("${repo}", "${path}")`];
  return [...shell, "", "```python", ...load, "```"];
}

/** What is a path on the machine of the training says nothing to others. */
function lastPart(name: string | undefined): string | undefined {
  return name?.replace(/\/+$/, "").split(/[/\\]/).at(-1);
}

/** Text of files in a table of Markdown. */
function plain(text: string): string {
  return text.replace(/[`|<>\r\n]/g, " ").trim();
}
