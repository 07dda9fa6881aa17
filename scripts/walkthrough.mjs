// docs/walkthrough.md: commands on the example, and what they print.
//
//     npm run build && node scripts/walkthrough.mjs            runs them all and writes the page (5 min)
//     npm run build && node scripts/walkthrough.mjs --check    runs them on less data; exits 1 where
//                                                     the page's commands or labels differ
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { evaluate, harvest, report, train } from "./demo-commands.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const page = join(root, "docs", "walkthrough.md");
const checking = process.argv.includes("--check");
const DIR = "runs";

/** Headings, what to say, and commands: `saetta` is left out. */
const STEPS = [
  {
    title: "Harvest activations",
    text: "The language model reads text; the values of one tensor become the rows of a file.",
    commands: [harvest(DIR)],
  },
  {
    title: "Look at the data",
    text: "`inspect` says what training will meet: scale, outliers, duplicates, values that are not finite, start tokens.",
    commands: [`inspect ${DIR}/acts.h5`],
  },
  {
    title: "Train",
    text: "The plan comes first, then the loss. The last lines say how good the result is on held-out rows.",
    commands: [train(DIR)],
  },
  {
    title: "Evaluate",
    text: "On the rows that training never saw, with some latents in their text.",
    commands: [evaluate(DIR)],
  },
  {
    title: "See every latent",
    text: "One HTML file that opens from disk. [What it shows](dashboard.md).",
    commands: [report(DIR)],
  },
  {
    title: "Train another kind, and compare",
    text: "BatchTopK keeps k latents per row on average. The table has both on the same rows.",
    commands: [
      `train ${DIR}/acts.h5 --architecture batchtopk --latents 2048 --k 16 --batch 1024 --tokens 1M --out ${DIR}/batchtopk`,
      `ls ${DIR}`,
      `eval ${DIR}/sae ${DIR}/batchtopk --markdown`,
    ],
  },
  {
    title: "What the language model loses",
    text: "The reconstruction takes the place of the tensor inside the model. [Definitions](evaluation.md).",
    commands: [`eval ${DIR}/sae --loss --loss-tokens 10k`],
  },
  {
    title: "Codes as a file",
    text: "Which latents are active in each row, as a sparse matrix.",
    commands: [`encode ${DIR}/sae --out ${DIR}/codes.npz`],
  },
  {
    title: "Take it to another program",
    text: "`--verify` evaluates the written file by the rules of that program. [Formats](interchange.md).",
    commands: [`export ${DIR}/sae --format saelens --out ${DIR}/saelens --verify`],
  },
  {
    title: "Extend the run",
    text: "`resume` continues from the last checkpoint; with a larger budget it trains longer.",
    commands: [`resume ${DIR}/sae --tokens 4M`, `verify ${DIR}/sae`],
  },
];

/** The same command on little data. */
const small = (command) =>
  command.replace("--tokens 250k", "--tokens 30k").replace(/--tokens \dM/, (of) => `--tokens ${of.at(-2)}0k`);

/** A folder with the clone's examples, so that paths on the page are short. */
const folder = mkdtempSync(join(tmpdir(), "saetta-walkthrough-"));
cpSync(join(root, "examples"), join(folder, "examples"), { recursive: true });
process.on("exit", () => rmSync(folder, { recursive: true }));

/** What the command writes to stdout; lines of progress are on stderr. */
function saetta(command) {
  const words = (checking ? small(command) : command).split(" ");
  const { status, stdout, stderr } = spawnSync(process.execPath, [resolve(root, "dist/cli.js"), ...words], {
    cwd: folder,
    encoding: "utf8",
    env: { ...process.env, NO_COLOR: "1" },
  });
  if (status === 0) return stdout.replaceAll(`${folder}/`, "").trim();
  console.error(`saetta ${command}\n${stderr}`);
  process.exit(1);
}

/** What begins the lines of an output. Numbers and lines without a label depend on the machine. */
const labels = (output) => [
  ...new Set(
    output
      .split("\n")
      .map((line) => line.match(/^([A-Za-z][A-Za-z0-9 -]*?) {2,}\S/)?.[1]?.replaceAll(/\d+/g, "N"))
      .filter((label) => label !== undefined && label !== "note"),
  ),
];

const blockOf = (command, output) => `\`\`\`\n$ saetta ${command}\n${output}\n\`\`\`\n`;

if (checking) {
  const text = readFileSync(page, "utf8");
  const shown = [...text.matchAll(/^```\n\$ saetta ([^\n]*)\n(.*?)^```$/gms)].map(([, command, output]) => ({
    command,
    output,
  }));
  const differences = [];
  const commands = STEPS.flatMap((step) => step.commands);
  for (const [i, command] of commands.entries()) {
    const output = saetta(command);
    if (shown[i]?.command !== command) differences.push(`command ${i + 1}: the page has ${shown[i]?.command}`);
    const [here, there] = [labels(output), labels(shown[i]?.output ?? "")].map((all) => all.toSorted().join("\n  "));
    if (here !== there) differences.push(`saetta ${command}\nprints\n  ${here}\nthe page has\n  ${there}`);
  }
  if (shown.length !== commands.length)
    differences.push(`the page has ${shown.length} commands, not ${commands.length}`);
  for (const difference of differences) console.error(difference);
  if (differences.length > 0) console.error("make the page again: npm run build && node scripts/walkthrough.mjs");
  process.exitCode = differences.length > 0 ? 1 : 0;
} else {
  const parts = STEPS.map(
    ({ title, text, commands }) =>
      `## ${title}\n\n${text}\n\n${commands.map((command) => blockOf(command, saetta(command))).join("\n")}`,
  );
  writeFileSync(
    page,
    `<!-- Written by scripts/walkthrough.mjs, which runs the commands. Do not edit. -->

# Walkthrough

Each command on the example that comes with Saetta, with what it printed on a machine with two processors. Lines of
progress are left out. \`npm run demo\` runs the first ones.

${parts.join("\n")}`,
  );
}
