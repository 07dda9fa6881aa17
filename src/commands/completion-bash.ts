/** Completion for bash 4 and later. */

import type { Completed } from "./completed.ts";

/** Where nothing is offered, `-o default` completes files. */
export function bashScript(commands: readonly Completed[]): string {
  const names = commands.map(({ name }) => name);
  const values = commands.flatMap(({ name, flags }) => {
    const worded = flags
      .filter(({ words }) => words.length > 0)
      .map(({ flag, words }) => `    "${name} ${flag}") offer="${words.join(" ")}" ;;`);
    const files = flags
      .filter(({ takesValue, words }) => takesValue && words.length === 0)
      .map(({ flag }) => `"${name} ${flag}"`);
    return files.length > 0 ? [...worded, `    ${files.join("|")}) ;;`] : worded;
  });
  const flags = commands.map(
    ({ name, flags: all }) => `        ${name}) offer="${all.map(({ flag }) => flag).join(" ")}" ;;`,
  );
  const first = commands
    .filter(({ words }) => words.length > 0)
    .map(({ name, words }) => `        ${name}) offer="${words.join(" ")}" ;;`);
  return `# Completion of saetta for bash; made by: saetta completion bash
_saetta() {
  local current=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD - 1]} command= offer= word
  # --flag=value comes as three words.
  if [[ $current == = ]]; then current=; elif [[ $before == = ]]; then before=\${COMP_WORDS[COMP_CWORD - 2]}; fi
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case $word in ${names.join("|")}) command=$word; break ;; esac
  done
  case "$command $before" in
${values.join("\n")}
    *)
      if [[ -z $command ]]; then offer="${names.join(" ")} help --help --version"
      elif [[ $current == -* ]]; then case $command in
${flags.join("\n")}
      esac
      else case $command in
${first.join("\n")}
      esac
      fi ;;
  esac
  COMPREPLY=($(compgen -W "$offer" -- "$current"))
}
complete -o default -F _saetta saetta
`;
}
