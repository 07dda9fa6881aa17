// docs/api.md: what the package exports, from its declarations and their doc comments.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const dist = fileURLToPath(new URL("../dist", import.meta.url));
const read = (file) => readFileSync(join(dist, file), "utf8");

/** Every export of a declaration file, with the file that declares it. */
function exportsOf(file) {
  const text = read(file);
  const passedOn = [...text.matchAll(/^export (?:type )?\{([^}]*)\} from "(.*)\.ts";/gm)].flatMap(([, names, from]) =>
    names
      .split(",")
      .map((name) => ({ name: name.trim().replace(/^type /, ""), file: join(dirname(file), `${from}.d.ts`) })),
  );
  const own = [...text.matchAll(/^export (?:declare )?(?:function|interface|type|class|const) (\w+)/gm)];
  return [...own.map(([, name]) => ({ name, file })), ...passedOn];
}

/** The declaration, without its body's private parts, and its doc comment. */
function declarationOf({ name, file }) {
  const text = read(file);
  const start = new RegExp(
    `((?:^/\\*\\*(?:(?!\\*/)[^])*\\*/\\n)?)^export (?:declare )?((function|interface|type|class|const) ${name}\\b)`,
    "m",
  );
  const found = start.exec(text);
  if (found === null) {
    const from = exportsOf(file).find((each) => each.name === name && each.file !== file);
    if (from === undefined) throw new Error(`${file}: has no ${name}`);
    return declarationOf(from);
  }
  const [, comment, , kind] = found;
  const rest = text.slice(found.index + comment.length);
  let [depth, end] = [0, 0];
  for (; end < rest.length; end++) {
    if ("{([".includes(rest[end])) depth++;
    if ("})]".includes(rest[end])) depth--;
    const closes = kind === "interface" || kind === "class" ? rest[end] === "}" : rest[end] === ";";
    if (closes && depth === 0) break;
  }
  const code = rest
    .slice(0, end + 1)
    .replace(/^export (declare )?/, "")
    .replace(/^ *(#private|private .*);\n/gm, "")
    .replace(/^( {4})+/gm, (spaces) => " ".repeat(spaces.length / 2));
  return { name, kind, text: proseOf(comment), code };
}

const proseOf = (comment) =>
  comment
    .replace(/^\/\*\* ?|\s*\*\/\s*$/g, "")
    .replace(/^ \* ?/gm, "")
    .trim();

/** The options of training: one schema is behind flags, config files and the library. */
async function optionsTable() {
  const { DEFAULTS, flagOf, trainOptions } = await import("../dist/config.js");
  const rows = Object.entries(trainOptions.shape).map(([name, { description, meta }]) => {
    const byDefault = meta?.call(trainOptions.shape[name])?.default ?? DEFAULTS[name] ?? "";
    const cells = [`\`${flagOf(name)}\``, `\`${name}\``, description, String(byDefault)];
    return `| ${cells.map((cell) => cell.replaceAll("|", "\\|").replaceAll("\n", " ")).join(" | ")} |`;
  });
  return ["| flag | option | what it is | default |", "| --- | --- | --- | --- |", ...rows].join("\n");
}

/** The text of docs/api.md. */
export async function apiPage() {
  const all = exportsOf("index.d.ts").map(declarationOf);
  const sections = [
    ["Functions", all.filter(({ kind }) => kind === "function")],
    ["Values and errors", all.filter(({ kind }) => kind === "const" || kind === "class")],
    ["Types", all.filter(({ kind }) => kind === "interface" || kind === "type")],
  ];
  const entry = ({ name, text, code }) =>
    `### ${name}\n\n${text === "" ? "" : `${text}\n\n`}\`\`\`ts\n${code}\n\`\`\`\n`;
  const parts = sections.map(
    ([title, entries]) =>
      `## ${title}\n\n${entries
        .toSorted((a, b) => (a.name < b.name ? -1 : 1))
        .map(entry)
        .join("\n")}`,
  );
  return `<!-- Written by scripts/docs.mjs from the declarations. Do not edit. -->

# API

What \`import { ... } from "saetta"\` gives. [The library](library.md) has examples.

${parts.join("\n")}
## Options of training

Flags of \`saetta train\`, and names of the same options in config files and in \`TrainOptions\`. An empty default follows
from the architecture or the data, or means off.

${await optionsTable()}
`;
}
