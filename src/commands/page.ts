/** `--serve` of the commands that train. */

import type { Command } from "commander";
import { UsageError } from "../util/errors.ts";
import { parseCount } from "../util/numbers.ts";
import { note } from "./note.ts";

export interface PageFlags {
  readonly serve?: boolean;
  readonly port?: number;
}

const PORT = "port of the page (default: 7232, or the next that is free)";

export function addPortFlag(command: Command): Command {
  return command.option("--port <N>", PORT, parsePort);
}

export function addPageFlags(command: Command): Command {
  return addPortFlag(command.option("--serve", "show the run in the browser while it goes on"));
}

/** Throws UsageError for a port without a page. */
export function checkPageFlags({ serve, port }: PageFlags): void {
  if (port !== undefined && serve !== true)
    throw new UsageError("--port is that of the page, which --serve asks for", { mend: "add --serve" });
}

/** Shows the run folder if that was asked for, until what is returned is called. */
export async function showRun(out: string | undefined, { serve, port }: PageFlags): Promise<() => Promise<void>> {
  if (serve !== true || out === undefined) return () => Promise.resolve();
  const { serveBeside } = await import("../dashboard/beside.ts");
  const page = await serveBeside({ folders: [out], port }, note);
  if (page.url !== undefined) note(`the run is shown at ${page.url}`);
  return async () => {
    await page.close();
    if (page.url !== undefined) note(`saetta serve ${out} shows the run again`);
  };
}

function parsePort(text: string): number {
  return parseCount(text, "--port", 0, 65_535);
}
