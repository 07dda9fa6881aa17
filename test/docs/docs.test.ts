/** What the pages say is there: links, flags, commands, files, scripts. */

import { existsSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { expect, it } from "vitest";
import { FLAGS, faultOf, shellWords } from "./commands.ts";
import {
  anchorOf,
  blocksOf,
  headingsOf,
  linksOf,
  listed,
  PAGES,
  PRESENT,
  spansOf,
  tablesOf,
  textOfPage,
} from "./pages.ts";

/** Flags of other programs that the pages name. */
const OTHERS = [
  ...["--batch-size", "--d-sae", "--disable-wasm-trap-handler", "--ignore-scripts", "--signal"],
  ...["--count", "--only", "--quick", "--mpi", "--gpus-per-task", "--no-python", "--nproc-per-node"],
];

interface Written {
  readonly command: string;
  /** In a sentence, where it may be named without all that it needs. */
  readonly inSentence: boolean;
}

/** What follows the word saetta in lines of shell and in sentences. */
function commandsOf(text: string): Written[] {
  const lines = blocksOf(text).flatMap(({ language, code }) =>
    code
      .replaceAll("\\\n", " ")
      .split("\n")
      .filter((line) => language === "sh" || line.startsWith("$ saetta ")),
  );
  const commandOf = (line: string) => /(?:^|[ /(])saetta ([a-z-]+(?: .*)?)$/.exec(line)?.slice(1) ?? [];
  return [
    ...lines.flatMap(commandOf).map((command) => ({ command, inSentence: false })),
    ...spansOf(text)
      .flatMap(commandOf)
      .map((command) => ({ command, inSentence: true })),
  ];
}

/** What `faultsOf` finds in each page. */
async function inPages(
  pages: readonly string[],
  faultsOf: (text: string, page: string) => Promise<string[]> | string[],
) {
  const found = await Promise.all(
    pages.map(async (page) => (await faultsOf(textOfPage(page), page)).map((fault) => `${page}: ${fault}`)),
  );
  return found.flat();
}

it("links go to files and headings that are there", async () => {
  const broken = (text: string, page: string) =>
    linksOf(text).filter((link) => {
      const [to, anchor] = link.split("#") as [string, string?];
      const path = to === "" ? page : normalize(join(dirname(page), to));
      if (!existsSync(path)) return true;
      return anchor !== undefined && path.endsWith(".md") && !anchorsOf(path).includes(decodeURIComponent(anchor));
    });
  expect(await inPages(PAGES, broken)).toEqual([]);
});

function anchorsOf(path: string): string[] {
  return headingsOf(textOfPage(path)).map(({ title }) => anchorOf(title));
}

it("commands parse", async () => {
  const wrong = async (text: string) => {
    const faults: string[] = [];
    for (const { command, inSentence } of commandsOf(text)) {
      const words = shellWords(command).filter((word) => word !== "...");
      const fault = await faultOf(words, inSentence);
      if (fault !== undefined) faults.push(`saetta ${command}: ${fault}`);
    }
    return faults;
  };
  expect(await inPages(PRESENT, wrong)).toEqual([]);
});

it("flags exist", async () => {
  const unknown = (text: string) =>
    spansOf(text)
      .flatMap((span) => Array.from(span.matchAll(/(?<![\w-])--[a-z][\w-]*/g), ([flag]) => flag))
      .filter((flag) => !FLAGS.has(flag) && !OTHERS.includes(flag));
  expect(await inPages(PRESENT, unknown)).toEqual([]);
});

it("tables of options have options of saetta", async () => {
  const unknown = (text: string) =>
    tablesOf(text)
      .filter(([head]) => /^`?(option|flag|here|--normalize)/.test(head?.[0] ?? ""))
      .flatMap(([, , ...rows]) => rows.map(([first]) => first!))
      .flatMap((cell) => Array.from(cell.matchAll(/--[a-z][\w-]*/g), ([flag]) => flag))
      .filter((flag) => !FLAGS.has(flag));
  expect(await inPages(PRESENT, unknown)).toEqual([]);
});

it("files and folders of the repository are there", async () => {
  const files = listed("*");
  const missing = (text: string) =>
    spansOf(text)
      .flatMap((span) => span.split(/[\s,]+/))
      .filter((word) => /^[\w./-]+$/.test(word))
      .filter((word) => {
        if (/^(src|test|docs|bench|scripts|examples|python)\//.test(word)) return !existsSync(word);
        if (!/\w\.(ts|tsx|mjs|cu|cuh|cc)$/.test(word)) return false;
        return !files.some((file) => file === word || file.endsWith(`/${word}`));
      });
  expect(await inPages(PRESENT, missing)).toEqual([]);
});

it("scripts are in package.json", async () => {
  const { scripts } = JSON.parse(readFileSync("package.json", "utf8")) as { scripts: Record<string, string> };
  const missing = (text: string) =>
    Array.from(text.matchAll(/npm run ([\w:-]+)/g), ([, script]) => script!).filter((script) => !(script in scripts));
  expect(await inPages(PRESENT, missing)).toEqual([]);
});

it("ARCHITECTURE.md has each folder of src/, and no other", () => {
  const table = tablesOf(textOfPage("ARCHITECTURE.md")).find(([head]) => head?.[0] === "folder")!;
  const named = table
    .flatMap(([first]) => Array.from(first!.matchAll(/`([\w-]+)\/`/g), ([, folder]) => folder!))
    .filter((folder) => folder !== "src") // what another row is next to
    .toSorted((a, b) => (a < b ? -1 : 1));
  const folders = new Set(listed("src/*/*").map((path) => path.split("/")[1]!));
  expect(named).toEqual([...folders]);
});

it("docs/verification.md has every script that checks or measures", () => {
  const { scripts } = JSON.parse(readFileSync("package.json", "utf8")) as { scripts: Record<string, string> };
  const checks = Object.keys(scripts).filter((name) => /^(test|bench|torture)/.test(name));
  const text = textOfPage("docs/verification.md");
  expect(checks.filter((name) => !text.includes(name === "test" ? "`npm test`" : `\`npm run ${name}\``))).toEqual([]);
});

it("the index of docs/ has every page", () => {
  const indexed = new Set(linksOf(textOfPage("docs/README.md")).map((link) => normalize(join("docs", link))));
  const pages = PAGES.filter((page) => /^docs\/(guides\/)?[^/]+\.md$/.test(page) && !/\.zh\.md$/.test(page));
  expect(pages.filter((page) => page !== "docs/README.md" && !indexed.has(page))).toEqual([]);
});

it("decisions begin with context, decision and cost", () => {
  const without = listed("docs/decisions/0*.md").filter((path) => {
    const heads = textOfPage(path).match(/^\*\*(Context|Decision|Cost)\.\*\*/gm) ?? [];
    return heads.join(" ") !== "**Context.** **Decision.** **Cost.**";
  });
  expect(without).toEqual([]);
});

it("CITATION.cff has the version of package.json", () => {
  const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };
  expect(readFileSync("CITATION.cff", "utf8")).toContain(`\nversion: ${version}\n`);
});

it("the speeds of README.md are those of bench/results", () => {
  const results = ["cpu", "gpu"].map((name) => textOfPage(`bench/results/${name}.md`)).join("\n");
  const [, , ...rows] = tablesOf(textOfPage("README.md"))[0]!;
  const figures = rows.flatMap(([, , ...cells]) => cells.flatMap((cell) => cell.match(/\d+([.,]\d+)*/g) ?? []));
  expect(figures).toHaveLength(8);
  expect(figures.filter((figure) => !new RegExp(`(?<![\\d.,])${figure}(?![\\d.,]*\\d)`).test(results))).toEqual([]);
});

it("README.md can be read in a few minutes", () => {
  expect(textOfPage("README.md").split(/\s+/).length).toBeLessThanOrEqual(900);
});
