/** The start of the page of a features file. */

import { type FeatureIndex, inflateJson } from "../shared/format.ts";
import { LABELS_CHUNK, type Label } from "../shared/labels.ts";
import { FeatureReader } from "../shared/reader.ts";
import { mountExplorer } from "./mount.tsx";
import { chunk, startPage, WHERE } from "./one-file.ts";

void startPage(async (root) => {
  const { summary } = (await inflateJson(await chunk("index"), WHERE)) as Pick<FeatureIndex, "summary">;
  const labels = document.getElementById(LABELS_CHUNK) && inflateJson(await chunk(LABELS_CHUNK), WHERE);
  const read = async () => new Map((await labels) as readonly (readonly [number, Label])[] | null);
  root.replaceChildren();
  mountExplorer(root, new FeatureReader(summary, chunk, WHERE, read));
});
