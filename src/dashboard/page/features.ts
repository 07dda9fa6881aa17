/** Where the explorer's pages come in: what is mounted at /features/RUN and at /ask/RUN. */

import { useEffect, useState } from "preact/hooks";
import { askOffer } from "../../explorer/page/ask-client.ts";

export { mountAsk } from "../../explorer/page/ask-mount.tsx";
export { mountFeatures } from "../../explorer/page/mount.tsx";

/** Whether the server has a language model, so that texts can be asked about. */
export function useOffer(): boolean {
  const [hasModel, setHasModel] = useState(false);
  useEffect(() => {
    askOffer().then(
      ({ model }) => setHasModel(model !== null),
      () => undefined, // an older server has none
    );
  }, []);
  return hasModel;
}
