/** Completion for fish 3 and later. */

import type { Completed, CompletedFlag } from "./completed.ts";

export function fishScript(commands: readonly Completed[]): string {
  const lines = commands.flatMap(({ name, summary, flags, words }) => {
    const here = `complete -c saetta -n '__fish_seen_subcommand_from ${name}'`;
    return [
      `complete -c saetta -n __fish_use_subcommand -f -a ${name} -d ${quoted(summary)}`,
      ...(words.length > 0 ? [`${here} -f -a ${quoted(words.join(" "))}`] : []),
      ...flags.map((flag) => `${here} ${flagOf(flag)}`),
    ];
  });
  return `# Completion of saetta for fish; made by: saetta completion fish\n${lines.join("\n")}\n`;
}

function flagOf({ flag, summary, takesValue, words }: CompletedFlag): string {
  const value = words.length > 0 ? `-x -a ${quoted(words.join(" "))} ` : takesValue ? "-r -F " : "";
  return `-l ${flag.slice(2)} ${value}-d ${quoted(summary)}`;
}

function quoted(text: string): string {
  return `'${text.replace(/['\\]/g, "\\$&")}'`;
}
