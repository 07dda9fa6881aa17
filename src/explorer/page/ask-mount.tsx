/** Where questions about your own text are put into the page of a server. */

import askStyle from "./ask.css?inline";
import { Ask } from "./ask.tsx";
import { mountInShadow } from "./mount.tsx";

/** `id`: of the run or autoencoder, as addresses have it. */
export function mountAsk(element: Element, id: string): () => void {
  return mountInShadow(element, <Ask id={id} />, askStyle);
}
