// Markdown -> HTML, as GitHub shows it: headings with anchors, tables, formulas as MathML.
import { Marked } from "marked";
import temml from "temml";
import { anchorOf } from "./anchor.mjs";

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const formula = (text, displayMode) => temml.renderToString(text, { displayMode, throwOnError: true });

/** `$...$`: no space inside the dollars, and no digit after them, so that prices stay text. */
const inlineFormula = {
  name: "formula",
  level: "inline",
  start: (text) => text.indexOf("$"),
  tokenizer(text) {
    const [raw, inside] = /^\$((?!\s)[^$\n]+?)(?<!\s)\$(?!\d)/.exec(text) ?? [];
    return raw === undefined ? undefined : { type: "formula", raw, inside };
  },
  renderer: ({ inside }) => formula(inside, false),
};

/** HTML of a page; `linkTo` says where each link and picture goes. */
export function htmlOf(markdown, linkTo) {
  const marked = new Marked({
    extensions: [inlineFormula],
    walkTokens(token) {
      if (token.type === "link" || token.type === "image") token.href = linkTo(token.href);
      if (token.type === "html") token.text = token.text.replace(/src="([^"]+)"/g, (_, to) => `src="${linkTo(to)}"`);
    },
    renderer: {
      heading({ tokens, depth, text }) {
        const id = anchorOf(text);
        return `<h${depth} id="${id}"><a href="#${id}">${this.parser.parseInline(tokens)}</a></h${depth}>\n`;
      },
      code({ text, lang }) {
        return lang === "math"
          ? `<p class="math" tabindex="0">${formula(text, true)}</p>\n`
          : `<pre tabindex="0"><code>${escaped(text)}</code></pre>\n`;
      },
      table(token) {
        const cell = (kind, { tokens, align }) =>
          `<${kind}${align === "right" ? ' class="right"' : ""}>${this.parser.parseInline(tokens)}</${kind}>`;
        const row = (kind, cells) => `<tr>${cells.map((each) => cell(kind, each)).join("")}</tr>`;
        return `<div class="wide" tabindex="0"><table><thead>${row("th", token.header)}</thead><tbody>${token.rows
          .map((cells) => row("td", cells))
          .join("\n")}</tbody></table></div>\n`;
      },
    },
  });
  return marked.parse(markdown);
}
