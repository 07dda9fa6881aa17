/** Where the explorer's pages come in: what is mounted at /features/RUN and at /ask/RUN. */

import { useEffect, useState } from "preact/hooks";
import { askOffer } from "../../explorer/page/ask-client.ts";
import type { AskOffer } from "../../explorer/shared/ask.ts";

export { mountAsk } from "../../explorer/page/ask-mount.tsx";
export { mountFeatures } from "../../explorer/page/mount.tsx";

const NOTHING: AskOffer = { model: null, others: [] };

/** Whether the server has a language model, so that texts can be asked about, and of what else. */
export function useOffer(): AskOffer {
  const [offer, setOffer] = useState(NOTHING);
  useEffect(() => {
    askOffer().then(setOffer, () => undefined); // an older server offers nothing
  }, []);
  return offer;
}
