#!/usr/bin/env node
/**
 * argv -> command. A command's module is loaded when it is called, so that `saetta --help` is
 * quick.
 */

import "./util/threads.ts";
import "./util/hold-signals.ts";

import { Command, CommanderError } from "commander";
import { isHubPath } from "./hub/address.ts";
import { ourWord } from "./other-words.ts";
import { hasCode, messageOf, SaettaError, systemError } from "./util/errors.ts";
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
    name: "ls",
    summary: "list runs, a line each",
    load: async () => (await import("./commands/ls.ts")).lsCommand,
  },
  {
    name: "eval",
    summary: "held-out metrics, and latents in their text",
    load: async () => (await import("./commands/eval.ts")).evalCommand,
  },
  {
    name: "encode",
    summary: "sparse codes of activations, as a file",
    load: async () => (await import("./commands/encode.ts")).encodeCommand,
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
    name: "push",
    summary: "upload an autoencoder to the Hugging Face Hub",
    load: async () => (await import("./commands/push.ts")).pushCommand,
  },
  {
    name: "report",
    summary: "what each latent does, in its text, as one HTML file",
    load: async () => (await import("./commands/report.ts")).reportCommand,
  },
  {
    name: "label",
    summary: "names and notes of latents, by hand or by a language model",
    load: async () => (await import("./commands/label.ts")).labelCommand,
  },
  {
    name: "compare",
    summary: "which latents of two autoencoders are the same",
    load: async () => (await import("./commands/compare.ts")).compareCommand,
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
    name: "python-path",
    summary: "print the folder of the Python package",
    load: async () => (await import("./commands/python-path.ts")).pythonPathCommand,
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
    if (argv.some(isHubPath)) (await import("./commands/hub-progress.ts")).showHubProgress();
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
    .description("Trains sparse autoencoders and transcoders on language-model activations.")
    .version(VERSION)
    .configureHelp({ minWidthToWrap: 24 })
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => {
        const command = program.commands.find((each) => each.name() === called);
        write(
          `saetta: ${plainly(text, command)}; saetta ${called === undefined ? "" : `${called} `}--help tells more\n`,
        );
      },
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

/**
 * "error: unknown option '--kk'\n(Did you mean --k?)" on one line; a word of another program is
 * answered with ours.
 */
function plainly(text: string, command: Command | undefined): string {
  const plain = text
    .replace(/^error: /, "")
    .trim()
    .replace(/\.$/, "")
    .replaceAll("\n", " ");
  const [, unknown] = /^unknown option '--?([^'=]+)/.exec(plain) ?? [];
  if (unknown === undefined || command === undefined) return plain;
  const flags = new Map(command.options.map((option) => [option.attributeName(), option.long ?? option.flags]));
  const spell = (name: string) => flags.get(name) ?? name;
  const ours = ourWord(unknown, spell, [...flags.keys()], DATA_ARGUMENT[command.name()]);
  return ours === undefined ? plain : `unknown option '--${unknown}'${ours}`;
}

/** How activations are named where they are arguments. */
const DATA_ARGUMENT: Readonly<Record<string, string>> = {
  train: "name the activations without a flag: saetta train acts.h5",
  eval: "name the activations after the autoencoder: saetta eval RUN acts.h5",
  encode: "name the activations after the autoencoder: saetta encode RUN acts.h5 --out codes.npz",
};

/** One line on stderr, and the exit code of the Contract: 2 for wrong usage, 1 for what failed. */
function report(thrown: unknown): number {
  if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? 0 : 2;
  process.stderr.write(`saetta: ${lineOf(thrown)}\n`);
  if (process.env.SAETTA_DEBUG === "1" && thrown instanceof Error)
    process.stderr.write(`${thrown.stack}\n${thrown.cause instanceof Error ? thrown.cause.stack : ""}\n`);
  return thrown instanceof SaettaError ? thrown.exitCode : 1;
}

function lineOf(thrown: unknown): string {
  if (thrown instanceof SaettaError) return thrown.message;
  const system = systemError(thrown);
  if (system !== undefined) return system.path === undefined ? system.what : `${system.path}: ${system.what}`;
  return `this is a bug of Saetta, please report it: ${messageOf(thrown)}`;
}

// A reader that went away (`saetta eval ... | head`) is no error of ours.
for (const stream of [process.stdout, process.stderr])
  stream.on("error", (error) => hasCode(error, "EPIPE") || process.exit(1));

// What nobody awaited still ends with one line.
process.on("uncaughtException", (thrown) => process.exit(report(thrown)));

process.exitCode = await main(process.argv.slice(2));
