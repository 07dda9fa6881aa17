import { render } from "preact";
import type { ExplorerSource } from "../source.ts";
import { Explorer } from "./explorer.tsx";
import "./explorer.css";
import "./latent.css";

/** Shows the features of `source` in an element of a page, and gives back what takes them away again. */
export function mountExplorer(element: Element, source: ExplorerSource): () => void {
  render(<Explorer source={source} />, element);
  return () => render(null, element);
}
