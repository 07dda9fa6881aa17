/**
 * The start of a page that is one file: its chunks are elements with their names as ids, in base64.
 */

import { type FeatureIndex, inflateJson } from "../shared/format.ts";
import { LABELS_CHUNK, type Label } from "../shared/labels.ts";
import { FeatureReader } from "../shared/reader.ts";
import { mountExplorer } from "./mount.tsx";
import "./static.css";

const WHERE = "this page";

async function chunk(name: string): Promise<Uint8Array<ArrayBuffer>> {
  const element = document.getElementById(name);
  if (element === null) throw new Error(`The page has no "${name}"; it was cut off, or is still loading.`);
  return Uint8Array.from(atob(element.textContent), (char) => char.charCodeAt(0));
}

async function start(root: Element): Promise<void> {
  try {
    const { summary } = (await inflateJson(await chunk("index"), WHERE)) as Pick<FeatureIndex, "summary">;
    root.replaceChildren();
    const labels = document.getElementById(LABELS_CHUNK) && inflateJson(await chunk(LABELS_CHUNK), WHERE);
    const read = async () => new Map((await labels) as readonly (readonly [number, Label])[] | null);
    mountExplorer(root, new FeatureReader(summary, chunk, WHERE, read));
  } catch (thrown) {
    root.textContent = `This page cannot be shown: ${thrown instanceof Error ? thrown.message : String(thrown)}`;
  }
}

const root = document.getElementById("explorer");
if (root !== null) void start(root);
