#!/usr/bin/env node
/** argv -> command. A command's module is loaded when it is called, so that `saetta --help` is quick. */

import "./util/threads.ts";

import { Command, CommanderError } from "commander";
import { hasCode, messageOf, SaettaError } from "./util/errors.ts";
import { VERSION } from "./util/version.ts";

interface Entry {
  readonly name: string;
  readonly summary: string;
  readonly load: () => Promise<(program: Command) => void>;
}

const COMMANDS: readonly Entry[] = [
  {
    name: "harvest",
    summary: "text and an ONNX language model in, a file of activations out",
    load: async () => (await import("./commands/harvest.ts")).harvestCommand,
  },
  {
    name: "train",
    summary: "train an autoencoder on activations",
    load: async () => (await import("./commands/train.ts")).trainCommand,
  },
  {
    name: "resume",
    summary: "go on with a run from its last checkpoint",
    load: async () => (await import("./commands/resume.ts")).resumeCommand,
  },
  {
    name: "eval",
    summary: "held-out metrics, and latents in their text",
    load: async () => (await import("./commands/eval.ts")).evalCommand,
  },
  {
    name: "export",
    summary: "write an autoencoder for other programs",
    load: async () => (await import("./commands/export.ts")).exportCommand,
  },
  {
    name: "import",
    summary: "read an autoencoder of another program",
    load: async () => (await import("./commands/import.ts")).importCommand,
  },
  {
    name: "report",
    summary: "what each latent does, in its text, as one HTML file",
    load: async () => (await import("./commands/report.ts")).reportCommand,
  },
  {
    name: "inspect",
    summary: "say what a file or folder is",
    load: async () => (await import("./commands/inspect.ts")).inspectCommand,
  },
  {
    name: "serve",
    summary: "show runs in the browser, live",
    load: async () => (await import("./commands/serve.ts")).serveCommand,
  },
  {
    name: "verify",
    summary: "check that a run folder is whole",
    load: async () => (await import("./commands/verify.ts")).verifyCommand,
  },
  {
    name: "doctor",
    summary: "which engines run here, and whether they compute right",
    load: async () => (await import("./commands/doctor.ts")).doctorCommand,
  },
  {
    name: "bench",
    summary: "time a training step here; or find a known dictionary again",
    load: async () => (await import("./commands/bench.ts")).benchCommand,
  },
  {
    name: "completion",
    summary: "print a script that completes saetta's words in your shell",
    load: async () => {
      const { completionCommand } = await import("./commands/completion.ts");
      return (program) => completionCommand(program, defineAll);
    },
  },
];

/** Defines every command, for those who want to know them all. */
async function defineAll(program: Command): Promise<void> {
  for (const { load } of COMMANDS) (await load())(program);
}

async function main(argv: readonly string[]): Promise<number> {
  try {
    await (await programFor(argv)).parseAsync(argv, { from: "user" });
    return Number(process.exitCode ?? 0);
  } catch (thrown) {
    return report(thrown);
  }
}

/** The program with the command that `argv` names; of the others, what `--help` says of them. */
async function programFor(argv: readonly string[]): Promise<Command> {
  const called = argv.find((word) => COMMANDS.some(({ name }) => name === word));
  const program = new Command("saetta")
    .description("Trains TopK sparse autoencoders on language-model activations.")
    .version(VERSION)
    .configureHelp({ minWidthToWrap: 24 })
    .exitOverride()
    .configureOutput({
      outputError: (text, write) =>
        write(`saetta: ${plainly(text)}; saetta ${called === undefined ? "" : `${called} `}--help tells more\n`),
    })
    .addHelpText(
      "after",
      "\nExample:\n  saetta train acts.h5 --latents 4096 --k 32 --out runs/first\n  saetta eval runs/first --features 5\n",
    );
  for (const { name, summary, load } of COMMANDS) {
    if (name === called) (await load())(program);
    else program.command(name).description(summary);
  }
  return program;
}

/** "error: unknown option '--kk'\n(Did you mean --k?)" on one line. */
function plainly(text: string): string {
  return text
    .replace(/^error: /, "")
    .trim()
    .replace(/\.$/, "")
    .replaceAll("\n", " ");
}

/** One line on stderr, and the exit code of the Contract: 2 for wrong usage, 1 for what failed. */
function report(thrown: unknown): number {
  if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? 0 : 2;
  const known =
    thrown instanceof SaettaError ||
    hasCode(thrown, "ENOENT", "EACCES", "EPERM", "ENOSPC", "EISDIR", "ENOTDIR", "EROFS", "EMFILE", "EIO", "EDQUOT");
  process.stderr.write(`saetta: ${known ? "" : "this is a bug of Saetta, please report it: "}${messageOf(thrown)}\n`);
  if (process.env.SAETTA_DEBUG === "1" && thrown instanceof Error)
    process.stderr.write(`${thrown.stack}\n${thrown.cause instanceof Error ? thrown.cause.stack : ""}\n`);
  return thrown instanceof SaettaError ? thrown.exitCode : 1;
}

// A reader that went away (`saetta eval ... | head`) is no error of ours.
for (const stream of [process.stdout, process.stderr])
  stream.on("error", (error) => hasCode(error, "EPIPE") || process.exit(1));

// What nobody awaited still ends with one line.
process.on("uncaughtException", (thrown) => process.exit(report(thrown)));

process.exitCode = await main(process.argv.slice(2));
