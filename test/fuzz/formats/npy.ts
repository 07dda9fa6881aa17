/** NumPy's .npy: the fixtures of every type that is read or refused, as written by NumPy. */

import { readdirSync, readFileSync } from "node:fs";
import { openSource } from "../../../src/data/open.ts";
import { openNpy } from "../../../src/formats/npy.ts";
import type { FuzzFormat, Sample } from "../format.ts";
import { all, readSource } from "./read.ts";

const FIXTURES = "src/formats/fixtures";

function samples(): Sample[] {
  const names = readdirSync(FIXTURES).filter((name) => name.endsWith(".npy"));
  return names.map((name) => ({
    name,
    file: name,
    bytes: readFileSync(`${FIXTURES}/${name}`),
    // Two bytes without a type are bfloat16, which NumPy has no name for.
    refused: !/npy-(b?f\d+|untyped)\.npy/.test(name),
  }));
}

/** Magic, version, length of the header; each token of the header; the data. */
function boundaries(bytes: Buffer): number[] {
  const data = 10 + bytes.readUInt16LE(8);
  const header = bytes.toString("latin1", 10, data);
  return [
    0,
    6,
    7,
    8,
    10,
    ...Array.from(header.matchAll(/[{}():,']|\d+|\w+/g), ({ index }) => 10 + index),
    data,
    bytes.length,
  ];
}

export const npy: FuzzFormat = {
  name: "npy",
  samples,
  boundaries,
  read: (path) =>
    all(
      async () => (await openNpy(path)).handle.close(),
      async () => readSource(await openSource([path])),
    ),
};
