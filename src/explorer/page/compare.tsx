/** The start of the page of a comparison. */

import { render } from "preact";
import type { Comparison, Side } from "../shared/comparison.ts";
import { inflateJson, type LatentName } from "../shared/format.ts";
import comparisonStyle from "./comparison.css?inline";
import { ComparisonView } from "./comparison.tsx";
import explorerStyle from "./explorer.css?inline";
import labelStyle from "./label.css?inline";
import latentStyle from "./latent.css?inline";
import { chunk, startPage, WHERE } from "./one-file.ts";
import viewStyle from "./views.css?inline";

void startPage(async (root) => {
  const comparison = (await inflateJson(await chunk("comparison"), WHERE)) as Comparison;
  const names = (await inflateJson(await chunk("names"), WHERE)) as Readonly<Record<Side, readonly LatentName[]>>;
  root.replaceChildren();
  const shadow = root.attachShadow({ mode: "open" });
  const style = new CSSStyleSheet();
  style.replaceSync([explorerStyle, latentStyle, labelStyle, viewStyle, comparisonStyle].join("\n"));
  shadow.adoptedStyleSheets = [style];
  render(<ComparisonView comparison={comparison} names={names} />, shadow);
});
