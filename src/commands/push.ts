import { mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import { runFolderOf } from "../checkpoint/layout.ts";
import { type HubAddress, hubPath, isHubPath, parseHubPath } from "../hub/address.ts";
import { type Hub, hubOf } from "../hub/hub.ts";
import { readText } from "../hub/read.ts";
import { HubError } from "../hub/refusals.ts";
import { checkMayUpload, createRepo, type FileToUpload, type Uploaded, upload } from "../hub/upload.ts";
import { type Exchange, type ExportOptions, exportSae } from "../inference/exchange.ts";
import { FORMATS, type FormatName } from "../interchange/format.ts";
import { CONFIG } from "../run-files/names.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { snakeCase } from "../util/json.ts";
import { CARD_MARK, cardOf, type TrainedFacts } from "./card.ts";
import { addWriteFlags } from "./export.ts";
import { choice } from "./flags.ts";
import { note } from "./note.ts";

interface Flags extends Omit<ExportOptions, "out" | "format" | "bare"> {
  readonly format: FormatName;
  readonly private?: boolean;
  readonly message?: string;
  readonly json?: boolean;
}

export function pushCommand(program: Command): void {
  const command = program
    .command("push")
    .description("upload an autoencoder to the Hugging Face Hub, in another program's format, with a card")
    .argument("<sae>", "run folder, checkpoint folder, or any autoencoder that Saetta reads")
    .argument("<to>", "hf://org/repo, or a folder in it: hf://org/repo/folder")
    .addOption(choice("--format <format>", "whose files to write", FORMATS).default("saelens"))
    .option("--private", "make the repo private, where it is not there yet")
    .option("--message <text>", "message of the commit")
    .addHelpText("after", "\nExample:\n  saetta push runs/first hf://org/my-saes/layer_5 --verify\n");
  addWriteFlags(command).action(async (path: string, to: string, { json, ...flags }: Flags) => {
    if (!isHubPath(to)) throw new UsageError("is no repo of the Hub", { where: to, mend: "write hf://org/repo" });
    (await import("./hub-progress.ts")).showHubProgress("upload");
    const { done, pushed } = await push(path, parseHubPath(to), flags, hubOf());
    for (const each of done.notes) note(each);
    const result = { ...pushed, to, files: done.files, format: done.format, weights: done.weights };
    process.stdout.write(
      json === true
        ? `${JSON.stringify(snakeCase(result), undefined, 2)}\n`
        : `pushed       ${to}: ${done.files.join(", ")}\ncommit       ${pushed.page}\n`,
    );
  });
}

/** Exports into a folder that is deleted afterwards, and uploads it with a card. */
async function push(
  path: string,
  address: HubAddress,
  { private: isPrivate = false, message, ...options }: Omit<Flags, "json">,
  hub: Hub,
): Promise<{ readonly done: Exchange; readonly pushed: Uploaded }> {
  checkMayUpload(hub, address);
  const folder = await mkdtemp(join(tmpdir(), "saetta-push-"));
  try {
    const out = join(folder, "sae");
    const done = await exportSae(path, { ...options, out });
    const files: FileToUpload[] = [];
    for (const name of await readdir(out))
      files.push({ path: address.path === "" ? name : `${address.path}/${name}`, from: join(out, name) });
    const isNew = await createRepo(hub, address, isPrivate);
    if (!isNew && isPrivate) note(`${hubPath({ ...address, path: "" })} is there already: --private changes nothing`);
    if (isNew || (await mayWriteCard(hub, address))) {
      const card = join(folder, CARD);
      await writeFile(card, await cardFor(path, address, options, done));
      files.push({ path: CARD, from: card });
    }
    const summary = message ?? `${done.format} autoencoder${address.path === "" ? "" : ` in ${address.path}`}`;
    return { done, pushed: await upload(hub, address, files, summary) };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const CARD = "README.md";

/** A card that somebody wrote is left alone. */
async function mayWriteCard(hub: Hub, address: HubAddress): Promise<boolean> {
  try {
    if ((await readText(hub, { ...address, path: CARD })).includes(CARD_MARK)) return true;
    note(`${hubPath({ ...address, path: CARD })} was not written by saetta push, and is left as it is`);
    return false;
  } catch (thrown) {
    if (thrown instanceof HubError && thrown.kind === "path") return true;
    throw thrown;
  }
}

async function cardFor(
  sae: string,
  { name, path }: HubAddress,
  { format, model }: Pick<Flags, "format" | "model">,
  { description }: Exchange,
): Promise<string> {
  const baseModel = model !== undefined && /^[\w.-]+\/[\w.-]+$/.test(model) ? model : undefined;
  return cardOf({ repo: name, path, format, description, baseModel, trained: await trainedFacts(sae) });
}

/** What the run of the autoencoder says of it; undefined where it is of none. */
async function trainedFacts(sae: string): Promise<TrainedFacts | undefined> {
  const run = (await isFile(join(sae, CONFIG))) ? sae : runFolderOf(sae);
  if (run === undefined || !(await isFile(join(run, CONFIG)))) return undefined;
  try {
    const { readRunConfig } = await import("../train/run-folder.ts");
    const { Runs } = await import("../dashboard/runs.ts");
    const { options } = await readRunConfig(run);
    const [found] = (await Runs.open([run])).all;
    const { last, tokens, elapsed_s } = await found!.summary();
    const metrics = new Map(last);
    return {
      fvu: metrics.get("holdout_fvu_ema") ?? metrics.get("holdout_fvu"),
      ...{ l0: metrics.get("holdout_l0") ?? metrics.get("l0"), dead: metrics.get("dead") },
      ...{ tokens: tokens ?? undefined, seconds: elapsed_s ?? undefined },
      options: Object.entries(options).flatMap(([name, value]): [string, string][] =>
        isSaid(name, value) ? [[name, String(value)]] : [],
      ),
    };
  } catch (thrown) {
    if (!(thrown instanceof SaettaError)) throw thrown;
    note(`the card has no figures: ${thrown.message}`);
    return undefined;
  }
}

/** Options that name files of this machine, or how the run was watched. */
const UNSAID = ["out", "init", "target", "config", "tokenizer", "threads", "serve", "json", "keep", "logEvery"];

function isSaid(name: string, value: unknown): boolean {
  return (
    !UNSAID.includes(name) && ["number", "boolean", "string"].includes(typeof value) && !/[/\\]/.test(String(value))
  );
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() ?? false;
}
