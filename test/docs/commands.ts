/** The commands of `saetta`, which parse and do nothing. */

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { Command } from "commander";
import { listed } from "./pages.ts";

type Define = (program: Command) => void;

const definitions: readonly Define[] = await Promise.all(
  listed("src/commands/*.ts").flatMap((path) => {
    const [, name] = /^export function (\w+Command)\(program: Command/m.exec(readFileSync(path, "utf8")) ?? [];
    return name === undefined ? [] : [import(resolve(path)).then((module: Record<string, Define>) => module[name]!)];
  }),
);

/** A program with every command, of which none does anything. */
export function program(): Command {
  const all = new Command("saetta").version("0");
  for (const define of definitions) define(all);
  for (const each of [all, ...all.commands])
    each.exitOverride().configureOutput({ writeErr: () => {}, writeOut: () => {} });
  for (const command of all.commands) command.action(() => {});
  return all;
}

/** Every flag of every command. */
export const FLAGS: ReadonlySet<string> = new Set(
  program()
    .commands.flatMap((command) => command.options)
    .flatMap(({ long }) => (long === undefined || long === null ? [] : [long]))
    .concat("--help", "--version"),
);

/** Words of a line of shell: quotes are taken off, a comment ends it, as do pipes and the like. */
export function shellWords(line: string): string[] {
  const words: string[] = [];
  for (const [word] of line.matchAll(/(?:"[^"]*"|'[^']*'|[^\s"'])+/g)) {
    if (/^(#|\||&&|;|>|<)/.test(word)) break;
    words.push(word.replace(/["']/g, "").replace(/[;)]+$/, ""));
  }
  return words;
}

/** What commander says of a command that is not written in full, as one in a sentence. */
const SHORT = ["commander.missingArgument", "commander.missingMandatoryOptionValue", "commander.optionMissingArgument"];

/** What is wrong with the words after saetta; undefined when they parse, or are only too few. */
export async function faultOf(words: readonly string[], mayBeShort: boolean): Promise<string | undefined> {
  try {
    await program().parseAsync([...words], { from: "user" });
    return undefined;
  } catch (thrown) {
    const { code, exitCode, message } = thrown as { code?: string; exitCode?: number; message: string };
    return exitCode === 0 || (mayBeShort && SHORT.includes(code ?? "")) ? undefined : message;
  }
}
