/** Where the explorer is put into a page. */

import { type ComponentChild, render } from "preact";
import { httpSource } from "../shared/http-source.ts";
import type { ExplorerSource } from "../shared/source.ts";
import explorerStyle from "./explorer.css?inline";
import { Explorer } from "./explorer.tsx";
import labelStyle from "./label.css?inline";
import latentStyle from "./latent.css?inline";
import pairStyle from "./pair.css?inline";
import viewStyle from "./views.css?inline";

/**
 * Shows the features of `source` in an element of a page, and gives back what takes them away
 * again. `embedded`: the page has a head and a main part of its own.
 */
export function mountExplorer(element: Element, source: ExplorerSource, embedded = false): () => void {
  return mountInShadow(element, <Explorer source={source} embedded={embedded} />);
}

/** Shows `content` with the explorer's style and `more`; gives back what takes it away again. */
export function mountInShadow(element: Element, content: ComponentChild, more = ""): () => void {
  // Neither the page's rules of style reach in nor those of the explorer out.
  const holder = document.createElement("div");
  const root = holder.attachShadow({ mode: "open" });
  const style = new CSSStyleSheet();
  style.replaceSync([explorerStyle, latentStyle, labelStyle, pairStyle, viewStyle, more].join("\n"));
  root.adoptedStyleSheets = [style];
  element.append(holder);
  render(content, root);
  return () => {
    render(null, root);
    holder.remove();
  };
}

/**
 * The same inside another page, for features that a server answers with. `api`: where it does, such
 * as "/api/features/first".
 */
export function mountFeatures(element: Element, api: string): () => void {
  return mountExplorer(element, httpSource(api), true);
}
