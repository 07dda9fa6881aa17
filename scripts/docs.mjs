// `npm run docs`: what is made of docs/: drawings, the API page, the index of decisions.
// (docs/walkthrough.md takes minutes: node scripts/walkthrough.mjs.)
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { apiPage } from "./api.mjs";
import { PICTURES } from "./pictures.mjs";

const DECISIONS = new URL("../docs/decisions/", import.meta.url);

/** The text of docs/decisions/README.md. */
function decisionsPage() {
  const lines = readdirSync(DECISIONS)
    .filter((name) => /^\d{4}-/.test(name))
    .toSorted()
    .map((name) => {
      const [, number, title] = /^# (\d{4}): (.*)$/m.exec(readFileSync(new URL(name, DECISIONS), "utf8")) ?? [];
      if (title === undefined) throw new Error(`docs/decisions/${name}: begins with no "# NNNN: title"`);
      return `- [${number}](${name}): ${title}`;
    });
  return `<!-- Written by scripts/docs.mjs. Do not edit. -->

# Decisions

Why the code is as it is, where that is not plain from the code. Each page begins with the context, the decision and
its cost.

${lines.join("\n")}
`;
}

/** Path of each page and drawing that is made -> its text. */
export async function madeDocs() {
  const pictures = Object.entries(PICTURES).map(([name, text]) => [`docs/images/${name}`, text]);
  return Object.fromEntries([
    ...pictures,
    ["docs/api.md", await apiPage()],
    ["docs/decisions/README.md", decisionsPage()],
  ]);
}

if (process.argv[1] === new URL(import.meta.url).pathname)
  for (const [path, text] of Object.entries(await madeDocs()))
    writeFileSync(new URL(`../${path}`, import.meta.url), text);
