/** Downloads from the Hub and uploads to it, as the command line tells of them. */

import { type HubObserver, observeHub } from "../hub/hub.ts";
import { createProgressLine, type ProgressLine } from "../util/progress.ts";
import { note } from "./note.ts";

const MB = 1e6;

/** Shows them on stderr from now on: a line per file, with the rate and the time left. */
export function showHubProgress(label = "fetch"): void {
  let shown: { readonly name: string; readonly line: ProgressLine } | undefined;
  const observer: HubObserver = {
    progress(name, done, total) {
      if (shown?.name !== name) {
        shown?.line.done();
        const line = createProgressLine({ label: `${label} ${name}`, total: total / MB, unit: "MB", start: done / MB });
        shown = { name, line };
      }
      shown.line.update(done / MB);
      if (done < total) return;
      shown.line.done();
      shown = undefined;
    },
    note,
  };
  observeHub(observer);
}
