// The documentation as a site of plain HTML: node scripts/site.mjs [FOLDER] (default: site/).
//
// Pages are the Markdown files that GitHub shows, at the same places; README.md of a folder is its
// index. What they link to comes along. The menu is docs/README.md.
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { htmlOf } from "./markdown.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const START = ["README.md", "README.zh.md", "docs/README.md"];

const isPage = (path) => path.endsWith(".md");
const pageAt = (path) => path.replace(/(^|\/)README\.md$/, "$1index.html").replace(/\.md$/, ".html");
const isOutside = (link) => /^(https?:|mailto:|#)/.test(link);

/** Sections of docs/README.md, each with its pages: the first link of each item. */
function menu() {
  const sections = [];
  for (const line of readFileSync(join(root, "docs", "README.md"), "utf8").split("\n")) {
    const [, title] = /^\*\*(.*)\*\*$/.exec(line) ?? [];
    const [, name, to] = /^- \[([^\]]+)\]\(([^)]+)\)/.exec(line) ?? [];
    if (title !== undefined) sections.push({ title, pages: [] });
    if (name !== undefined) sections.at(-1).pages.push({ name, path: join("docs", to) });
  }
  return sections;
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");

/** A whole page; links are relative, so that the site opens from disk and at any address. */
function page(path, body, title, sections) {
  const to = (target) => relative(dirname(path), target) || ".";
  const item = ({ name, path: target }) =>
    `<li><a href="${to(pageAt(target))}"${target === path ? ' aria-current="page"' : ""}>${escaped(name)}</a></li>`;
  const links = sections.map(
    (section) => `<h2>${escaped(section.title)}</h2>\n<ul>${section.pages.map(item).join("\n")}</ul>`,
  );
  return `<!doctype html>
<html lang="${path.endsWith(".zh.md") ? "zh" : "en"}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title>
<link rel="stylesheet" href="${to("site.css")}">
</head>
<body>
<header><a href="${to("index.html")}">Saetta</a><a href="${to("docs/index.html")}">Pages</a><a href="${to("README.zh.html")}" lang="zh">中文</a></header>
<div class="columns">
<nav aria-label="Pages">
${links.join("\n")}
</nav>
<main>
${body}</main>
</div>
</body>
</html>
`;
}

/** Writes the site; returns its pages. Throws where a link goes nowhere or a formula is wrong. */
export function buildSite(folder) {
  // Only a site is replaced by a site.
  if (existsSync(folder) && readdirSync(folder).length > 0 && !existsSync(join(folder, "site.css")))
    throw new Error(`${folder}: is not empty and holds no site; name another folder`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const sections = menu();
  const found = [...START];
  for (const path of found) {
    const here = (link) => {
      if (isOutside(link)) return link;
      const [name, anchor] = link.split("#");
      const target = join(dirname(path), name);
      if (!existsSync(join(root, target))) throw new Error(`${path}: ${link} is not there`);
      if (!found.includes(target)) found.push(target);
      const to = isPage(target) ? pageAt(target) : target;
      return relative(dirname(path), to) + (anchor === undefined ? "" : `#${anchor}`);
    };
    const at = join(folder, pageAt(path));
    mkdirSync(dirname(at), { recursive: true });
    if (!isPage(path)) {
      if (statSync(join(root, path)).isDirectory()) throw new Error(`${path} is a folder: link to a file in it`);
      cpSync(join(root, path), at);
      continue;
    }
    const text = readFileSync(join(root, path), "utf8");
    const title = /^# (.*)$/m.exec(text)?.[1] ?? path;
    writeFileSync(at, page(path, htmlOf(text, here), title === "Saetta" ? title : `${title} - Saetta`, sections));
  }
  cpSync(join(root, "scripts", "site.css"), join(folder, "site.css"));
  return found.filter(isPage).map(pageAt);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const folder = resolve(process.argv[2] ?? join(root, "site"));
  console.log(`${buildSite(folder).length} pages in ${folder}`);
}
