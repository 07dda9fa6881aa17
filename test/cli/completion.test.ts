import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CHILD_MS } from "../support/limits.ts";
import { COMMANDS, saetta } from "./saetta.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-completion-"));
  await writeFile(join(folder, "acts one.h5"), "");
  for (const shell of ["bash", "zsh", "fish"]) {
    const { code, out, err } = await saetta(folder, "completion", shell);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    await writeFile(join(folder, `saetta.${shell}`), out);
  }
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

/** Why the shell cannot be tested here; undefined when it can. */
const missing = (shell: string) => (spawnSync(shell, ["-c", "true"]).status === 0 ? undefined : `no ${shell} here`);

function run(shell: string, script: string): string[] {
  const { stdout, stderr, status } = spawnSync(shell, ["-c", script], {
    cwd: folder,
    encoding: "utf8",
    timeout: CHILD_MS,
  });
  expect({ stderr, status }).toEqual({ stderr: "", status: 0 });
  return stdout.split("\n").filter((line) => line !== "");
}

describe.skipIf(missing("bash") !== undefined)("bash completes", () => {
  /**
   * What the function offers for the last word; bash itself completes files where that is nothing.
   */
  const offered = (...words: string[]) =>
    run(
      "bash",
      `source ./saetta.bash; complete -p saetta | grep -q -- '-o default' || exit 9
       COMP_WORDS=(saetta ${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length}; _saetta; printf '%s\\n' "\${COMPREPLY[@]}"`,
    );

  it.each<[string, string[], string[]]>([
    ["commands", [""], [...COMMANDS, "help", "--help", "--version"]],
    ["the beginning of one", ["tr"], ["train"]],
    ["flags", ["train", "--log"], ["--log-every"]],
    ["flags that turn something off", ["train", "--no-sh"], ["--no-shuffle"]],
    ["flags after data and other flags", ["train", "acts one.h5", "--k", "4", "--aux"], ["--auxk", "--auxk-coef"]],
    ["words of the schema", ["train", "--engine", ""], ["auto", "cpu", "cuda", "reference"]],
    [
      "words of the schema that another command has otherwise",
      ["train", "--dtype", ""],
      ["auto", "f32", "bf16", "fp16"],
    ],
    ["words after an equals sign", ["train", "--non-finite", "=", "s"], ["stop", "skip"]],
    ["the only word beside a number", ["train", "--mse-scale", "a"], ["auto"]],
    ["words of other commands", ["harvest", "--dtype", "f3"], ["f32"]],
    ["arguments", ["completion", ""], ["bash", "zsh", "fish"]],
    ["nothing of its own where a file may stand", ["train", "ac"], []],
    ["nor for a flag that takes one", ["train", "--config", ""], []],
    ["nor where a word is no command", ["trian", ""], [...COMMANDS, "help", "--help", "--version"]],
  ])("%s: %j", (_, words, expected) => {
    expect(offered(...words)).toEqual(expected);
  });

  it("every flag of every command", async () => {
    for (const command of COMMANDS) {
      const { out } = await saetta(folder, command, "--help");
      const flags = Array.from(out.matchAll(/^ {2}(?:-h, )?--(?:\[no-\])?([a-z0-9-]+)/gm), ([, flag]) => `--${flag}`);
      expect(flags.length).toBeGreaterThan(0);
      expect(offered(command, "--")).toEqual(expect.arrayContaining(flags));
    }
  });
});

describe.skipIf(missing("fish") !== undefined)("fish completes", () => {
  const offered = (line: string) =>
    run("fish", `source ./saetta.fish; complete -C '${line}'`).map((it) => it.split("\t")[0]!);

  it("commands, flags, their words, and files", () => {
    expect(new Set(offered("saetta "))).toEqual(new Set(COMMANDS));
    expect(offered("saetta train --log-e")).toEqual(["--log-every"]);
    expect(offered("saetta train --engine ")).toEqual(["auto", "cpu", "cuda", "reference"]);
    expect(new Set(offered("saetta completion "))).toEqual(new Set(["bash", "zsh", "fish"]));
    expect(offered("saetta train ac")).toEqual(["acts one.h5"]);
  });
});

describe.skipIf(missing("zsh") !== undefined)("zsh completes", () => {
  // An interactive zsh in a pseudo-terminal, to which the line and two tabs are typed.
  it.each([
    ["commands", "saetta tr", "*train*"],
    ["flags", "saetta train --log-e", "*log-every*"],
    ["their words", "saetta train --engine ", "*auto*cpu*reference*"],
    ["arguments", "saetta completion ", "*bash*fish*zsh*"],
    ["files", "saetta train ac", "*one.h5*"],
  ])("%s", (_, line, pattern) => {
    const script = `zmodload zsh/zpty; zpty it zsh -f -i
      zpty -w it "PS1=; autoload -U compinit; compinit -u -D; source ./saetta.zsh; LISTMAX=0; print rea''dy"
      zpty -r it text '*ready*' && zpty -w -n it '${line}'$'\\t\\t' && zpty -r it text '${pattern}' && print found`;
    expect(run("zsh", script)).toEqual(["found"]);
  });
});
