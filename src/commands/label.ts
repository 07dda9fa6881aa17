import { resolve } from "node:path";
import { Argument, type Command } from "commander";
import {
  appendLabels,
  checkChange,
  type LabelLine,
  parseLabels,
  readLabels,
  timeAfter,
} from "../explorer/labels-file.ts";
import { returnedOf } from "../explorer/shared/interpretation.ts";
import { isHubPath } from "../hub/address.ts";
import { labelsPath } from "../inference/labels.ts";
import { type FoundSae, findSae } from "../inference/weights.ts";
import { FormatError, SaettaError, UsageError } from "../util/errors.ts";
import { counted, formatPercent } from "../util/format.ts";
import { parseJsonText, readTextFile } from "../util/json.ts";
import { parseCount } from "../util/numbers.ts";
import { visible } from "../util/visible.ts";
import { addFlags, choice, DATA_FLAGS, givenOptions, oneOf } from "./flags.ts";
import { INFERENCE_DTYPE } from "./inference-engine.ts";
import { type ExportFlags, exportPassages } from "./label-export.ts";
import { note } from "./note.ts";

const ACTIONS = ["list", "set", "export", "import"] as const;
/** A file of answers about many latents. */
const MOST_BYTES = 512 * 1024 * 1024;

interface Flags extends ExportFlags {
  readonly name?: string;
  readonly note?: string;
  readonly json?: boolean;
}

const HELP = `
list    prints the names and notes
set     changes those of one latent: saetta label set RUN 12 --name "..."
export  writes passages for a language model to name latents by, and to test the
        names (python3 -m saetta.interpret asks one)
import  reads what came back, with the scores of the names; or a labels.jsonl,
        whose changes are merged

Examples:
  saetta label export runs/first --data acts.h5 --out passages.json
  saetta label import runs/first answers.json
`;

export function labelCommand(program: Command): void {
  const command = program
    .command("label")
    .description("names and notes of latents: list, set, and those that a language model writes")
    .addArgument(
      new Argument("<action>", "what to do").choices(ACTIONS).argParser((text) => oneOf(ACTIONS, text, "the action")),
    )
    .argument("<sae>", "run folder, checkpoint folder, or any autoencoder on this machine")
    .argument("[what]", "set: the latent; import: the file")
    .option("--name <text>", "set: the name; an empty one takes it away")
    .option("--note <text>", "set: the note")
    .option("--out <file>", "export: the JSON file to write")
    .option("--force", "export: replace the file if it exists")
    .option("--only <list>", "export: these latents, such as 12,99 (default: those that are easiest to read)")
    .option("--count <N>", "export: how many latents (default: 50)", (text) => parseCount(text, "--count"))
    .addOption(choice("--which <kind>", "export: named or unnamed latents only (default: all)", ["named", "unnamed"]))
    .option("--data <paths...>", "export: activations to draw passages from (default: the hold-out of the run)")
    .option("--tokenizer <path>", "export: their tokenizer.json (default: the one that they name)")
    .option("--json", "print one JSON object")
    .addHelpText("after", HELP);
  addFlags(command, DATA_FLAGS, { dtype: INFERENCE_DTYPE });
  command.action(async (action: (typeof ACTIONS)[number], sae: string, what: string | undefined, flags: Flags) => {
    if (action !== "set" && action !== "import" && what !== undefined)
      throw new UsageError(`label ${action} takes no "${what}"`, { mend: "see saetta label --help" });
    if (action === "export") {
      process.stdout.write(await exportPassages(sae, flags, givenOptions(command)));
    } else if (action === "import") process.stdout.write(await importLabels(sae, what));
    else if (action === "set") process.stdout.write(await setLabel(sae, what, flags));
    else process.stdout.write(await listLabels(sae, flags.json === true));
  });
}

/** Where labels are written. Throws UsageError for what lies in a cache. */
async function writable(sae: string): Promise<{ readonly found: FoundSae; readonly path: string }> {
  if (isHubPath(sae)) {
    throw new UsageError("labels are kept next to an autoencoder, and this one is on the Hub", {
      where: sae,
      mend: "saetta import brings it here",
    });
  }
  const found = await findSae(sae);
  return { found, path: labelsPath(found)! };
}

async function listLabels(sae: string, json: boolean): Promise<string> {
  const { of, unread } = await readLabels(labelsPath(await findSae(sae))!);
  if (unread > 0) note(`${counted(unread, "line")} of the labels cannot be read and are passed over`);
  const latents = Array.from(of, ([latent, label]) => ({ latent, ...label })).sort((a, b) => a.latent - b.latent);
  if (json) return `${JSON.stringify({ latents }, undefined, 2)}\n`;
  if (latents.length === 0) return "no latent has a name or a note\n";
  const width = Math.max(...latents.map(({ latent }) => String(latent).length));
  return latents
    .map(({ latent, name, note: noted, scores }) => {
      const known = Object.entries(scores ?? {}).map(
        ([scoring, { accuracy }]) => `${scoring} ${formatPercent(accuracy)}`,
      );
      const parts = [name, noted, known.join(", ")].filter((part) => part !== "").map(visible);
      return `${String(latent).padStart(width)}  ${parts.join(" | ")}\n`;
    })
    .join("");
}

async function setLabel(sae: string, what: string | undefined, flags: Flags): Promise<string> {
  if (what === undefined || (flags.name === undefined && flags.note === undefined))
    throw new UsageError("label set needs a latent and a name or note", {
      mend: 'saetta label set RUN 12 --name "..." --note "..."',
    });
  const latent = parseCount(what, "the latent", 0);
  const { found, path } = await writable(sae);
  const change = checkChange(latent, { name: flags.name, note: flags.note }, found.description.dims.n);
  await appendLabels(path, [{ ...change, at: timeAfter(await readLabels(path), [latent], Date.now()) }]);
  return `labelled     latent ${latent} in ${path}\n`;
}

async function importLabels(first: string, second: string | undefined): Promise<string> {
  const file = second ?? first;
  const text = await readTextFile(file, MOST_BYTES);
  const isLines = /^\s*\{[^\n]*\}\s*\n\s*\{/.test(text) || file.endsWith(".jsonl");
  const returned = isLines ? undefined : returnedOf(parseJsonText(text, file), file);
  const sae = second === undefined ? returned?.autoencoder : first;
  if (sae === undefined || sae === "")
    throw new UsageError("says not of which autoencoder it is", { where: file, mend: "saetta label import RUN FILE" });
  const { found, path } = await writable(sae);
  const before = await readLabels(path);
  const lines = returned === undefined ? merged(text, file) : named(returned.latents, before, found, file);
  for (const { latent } of lines) checkChange(latent, {}, found.description.dims.n);
  const known = new Set(before.lines.map((line) => JSON.stringify(line)));
  const fresh = lines.filter((line) => !known.has(JSON.stringify(line)));
  await appendLabels(path, fresh);
  const latents = new Set(fresh.map(({ latent }) => latent)).size;
  return `imported     ${counted(fresh.length, "change")} of ${counted(latents, "latent")} into ${resolve(path)}\n`;
}

/** The changes of another labels.jsonl, with their times. */
function merged(text: string, file: string): readonly LabelLine[] {
  const { lines, unread } = parseLabels(text);
  if (lines.length === 0)
    throw new FormatError("has no labels", { where: file, mend: "give a labels.jsonl or what came back from a model" });
  if (unread > 0) note(`${file}: ${counted(unread, "line")} cannot be read and are passed over`);
  return lines;
}

/** A line for each latent that came back with a name, as a change of now. */
function named(
  latents: ReturnType<typeof returnedOf>["latents"],
  before: Parameters<typeof timeAfter>[0],
  { description }: FoundSae,
  file: string,
): LabelLine[] {
  const given = latents.filter(({ name }) => name.trim() !== "");
  if (given.length === 0)
    throw new SaettaError("no latent has a name", { where: file, mend: "write them into its field name" });
  const numbers = given.map(({ latent }) => latent);
  const at = timeAfter(before, numbers, Date.now());
  return given.map(({ latent, name, note: noted, scores }) => {
    const change = checkChange(latent, { name, ...(noted !== "" && { note: noted }) }, description.dims.n);
    return { ...change, ...(Object.keys(scores).length > 0 && { scores }), at };
  });
}
