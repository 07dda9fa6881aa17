import { render } from "preact";
import { httpSource } from "../shared/http-source.ts";
import type { ExplorerSource } from "../shared/source.ts";
import { Explorer } from "./explorer.tsx";
import "./explorer.css";
import "./latent.css";

/** Shows the features of `source` in an element of a page, and gives back what takes them away again. */
export function mountExplorer(element: Element, source: ExplorerSource): () => void {
  render(<Explorer source={source} />, element);
  return () => render(null, element);
}

/** The same for features that a server answers with. `api`: where it does, such as "/api/features/first". */
export function mountFeatures(element: Element, api: string): () => void {
  return mountExplorer(element, httpSource(api));
}
