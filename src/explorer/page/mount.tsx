/** Where the explorer is put into a page. */

import { render } from "preact";
import { httpSource } from "../shared/http-source.ts";
import type { ExplorerSource } from "../shared/source.ts";
import explorerStyle from "./explorer.css?inline";
import { Explorer } from "./explorer.tsx";
import labelStyle from "./label.css?inline";
import latentStyle from "./latent.css?inline";
import pairStyle from "./pair.css?inline";

/**
 * Shows the features of `source` in an element of a page, and gives back what takes them away
 * again. `embedded`: the page has a head and a main part of its own.
 */
export function mountExplorer(element: Element, source: ExplorerSource, embedded = false): () => void {
  // Neither the page's rules of style reach in nor those of the explorer out.
  const holder = document.createElement("div");
  const root = holder.attachShadow({ mode: "open" });
  const style = new CSSStyleSheet();
  style.replaceSync(`${explorerStyle}\n${latentStyle}\n${labelStyle}\n${pairStyle}`);
  root.adoptedStyleSheets = [style];
  element.append(holder);
  render(<Explorer source={source} embedded={embedded} />, root);
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
