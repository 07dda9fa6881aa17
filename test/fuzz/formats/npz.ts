/**
 * NumPy's .npz: an autoencoder of Gemma Scope, stored, and a transcoder, deflated and with a matrix
 * in Fortran's order, as NumPy wrote them.
 */

import { readFileSync } from "node:fs";
import { openNpz } from "../../../src/formats/npz.ts";
import type { FuzzFormat, Sample } from "../format.ts";
import { all } from "./read.ts";
import { readWeights } from "./torch.ts";
import { boundaries, resealed } from "./zip.ts";

const FIXTURES = "test/interchange/fixtures";
const PATHS = [
  `${FIXTURES}/gemma-scope/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_7/params.npz`,
  `${FIXTURES}/gemma-scope-transcoder/gemma-scope-2b-pt-transcoders/layer_12/width_16k/average_l0_7/params.npz`,
];

function samples(): Sample[] {
  return PATHS.map((path, i) => ({
    name: i === 0 ? "stored" : "deflated",
    file: "params.npz",
    bytes: readFileSync(path),
  }));
}

async function readArrays(path: string): Promise<void> {
  const file = await openNpz(path);
  try {
    for (const name of file.arrays.keys()) await file.read(name);
  } finally {
    await file.close();
  }
}

export const npz: FuzzFormat = {
  ...{ name: "npz", samples, boundaries, resealed },
  read: (path) =>
    all(
      () => readArrays(path),
      () => readWeights(path),
    ),
};
