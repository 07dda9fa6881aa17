import { Argument, Command } from "commander";
import type { Completed } from "./completed.ts";
import { bashScript } from "./completion-bash.ts";
import { fishScript } from "./completion-fish.ts";
import { zshScript } from "./completion-zsh.ts";
import { oneOf, wordsOf } from "./flags.ts";

const SCRIPTS = { bash: bashScript, zsh: zshScript, fish: fishScript } as const;

/** `defineAll` adds every command to a program. */
export function completionCommand(program: Command, defineAll: (program: Command) => Promise<void>): void {
  program
    .command("completion")
    .description("print a script that completes saetta's commands, flags and values in your shell")
    .addArgument(
      new Argument("<shell>", "the shell")
        .choices(Object.keys(SCRIPTS))
        .argParser((text) => oneOf(Object.keys(SCRIPTS), text, "the shell")),
    )
    .addHelpText(
      "after",
      "\nExamples:\n  source <(saetta completion bash)                 # in ~/.bashrc\n  source <(saetta completion zsh)                  # in ~/.zshrc, after compinit\n  saetta completion fish | source                  # in ~/.config/fish/config.fish\n",
    )
    .action(async (shell: keyof typeof SCRIPTS) => {
      const everything = new Command();
      await defineAll(everything);
      process.stdout.write(SCRIPTS[shell](everything.commands.map(completed)));
    });
}

function completed(command: Command): Completed {
  const flags = command.options.map((option) => ({
    flag: option.long ?? option.flags,
    summary: option.description,
    takesValue: option.required || option.optional,
    words: wordsOf(option),
  }));
  const help = { flag: "--help", summary: "show this help", takesValue: false, words: [] };
  return {
    name: command.name(),
    summary: command.description(),
    flags: [...flags, help],
    words: command.registeredArguments[0]?.argChoices ?? [],
  };
}
