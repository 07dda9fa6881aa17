/** Completion for zsh. */

import type { Completed, CompletedFlag } from "./completed.ts";

export function zshScript(commands: readonly Completed[]): string {
  const named = commands.map(({ name, summary }) => `    ${quoted(`${name}:${summary}`)}`);
  const cases = commands.map(({ name, flags, words }) => {
    const argument = words.length > 0 ? `:value:(${words.join(" ")})` : ":file:_files";
    return `    ${name}) _arguments -S ${[...flags.map(flagOf), quoted(words.length > 0 ? `1${argument}` : `*${argument}`)].join(" \\\n      ")} ;;`;
  });
  return `#compdef saetta
# Completion of saetta for zsh; made by: saetta completion zsh
_saetta() {
  local -a commands=(
${named.join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join("\n")}
    *) _files ;;
  esac
}
if [[ $funcstack[1] == _saetta ]]; then _saetta "$@"; else compdef _saetta saetta; fi
`;
}

function flagOf({ flag, summary, takesValue, words }: CompletedFlag): string {
  const about = summary.replace(/[[\]\\:]/g, "\\$&");
  const value = words.length > 0 ? `:value:(${words.join(" ")})` : ":value:_files";
  return quoted(`${flag}${takesValue ? "=" : ""}[${about}]${takesValue ? value : ""}`);
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
