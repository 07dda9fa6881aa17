/** `--serve` of the commands that train. */

import { once } from "node:events";
import type { Command } from "commander";
import { UsageError } from "../util/errors.ts";
import { parseCount } from "../util/numbers.ts";
import { note } from "./note.ts";
import type { Ending } from "./signals.ts";

export interface PageFlags {
  readonly serve?: boolean;
  readonly port?: number;
}

const PORT = "port of the page (default: 7232, or the next that is free)";

export function addPortFlag(command: Command): Command {
  return command.option("--port <N>", PORT, parsePort);
}

export function addPageFlags(command: Command): Command {
  return addPortFlag(
    command.option("--serve", "show the run in the browser; in a terminal the page stays after the end, until Ctrl-C"),
  );
}

/** Throws UsageError for a port without a page. */
export function checkPageFlags({ serve, port }: PageFlags): void {
  if (port !== undefined && serve !== true)
    throw new UsageError("--port is that of the page, which --serve asks for", { mend: "add --serve" });
}

export interface RunPage {
  /** Undefined where there is no page. */
  readonly url: string | undefined;
  close(): Promise<void>;
}

/** Shows the run folder if that was asked for, until it is closed. */
export async function showRun(out: string | undefined, { serve, port }: PageFlags): Promise<RunPage> {
  if (serve !== true || out === undefined) return { url: undefined, close: () => Promise.resolve() };
  const { serveBeside } = await import("../dashboard/beside.ts");
  const page = await serveBeside({ folders: [out], port }, note);
  if (page.url !== undefined) note(`the run is shown at ${page.url}`);
  return {
    url: page.url,
    close: async () => {
      await page.close();
      if (page.url !== undefined) note(`saetta serve ${out} shows the run again`);
    },
  };
}

/**
 * Keeps the page of a run that is over until a signal comes, where somebody is there to look: not
 * where the output is no terminal or is JSON, for a script waits for the end. A run that a signal
 * ended does not wait for another.
 */
export async function keepPage(
  { url }: Pick<RunPage, "url">,
  ending: Ending,
  json: boolean,
  terminal = process.stdout.isTTY === true,
): Promise<void> {
  if (url === undefined || json || !terminal || ending.signal.aborted) return;
  ending.now("closing the page");
  note(`the page stays at ${url} until Ctrl-C`);
  const alive = setInterval(() => undefined, 60_000); // a listener for signals alone does not keep Node running
  await once(ending.signal, "abort");
  clearInterval(alive);
}

function parsePort(text: string): number {
  return parseCount(text, "--port", 0, 65_535);
}
