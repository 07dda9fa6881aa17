/**
 * Arrow streams: lists of lists, fixed-shape tensors and masks of bits, in several batches, as
 * Apache's own library writes them.
 */

import { openSource } from "../../../src/data/open.ts";
import { openArrow } from "../../../src/formats/arrow.ts";
import { batch, ipc, tensorBatch } from "../../support/arrow.ts";
import type { FuzzFormat, Sample } from "../format.ts";
import { all, MOST_BYTES, readSource } from "./read.ts";

function samples(): Sample[] {
  const files = {
    lists: ipc([batch("f32", 2, 0), batch("f32", 1, 24)]),
    fixed: ipc([batch("f16", 2, 0, { fixed: true })]),
    tensors: ipc([tensorBatch(2, 0), tensorBatch(3, 24)]),
  };
  return Object.entries(files).map(([name, bytes]) => ({ name, file: "a.arrow", bytes: Buffer.from(bytes) }));
}

/** Messages begin with a mark of four bytes; their metadata is of words. */
function boundaries(bytes: Buffer): number[] {
  const found: number[] = [bytes.length];
  for (let at = bytes.indexOf("ffffffff", 0, "hex"); at >= 0; at = bytes.indexOf("ffffffff", at + 4, "hex")) {
    const end = Math.min(
      bytes.length,
      at + 8 + Math.max(0, Math.min(4096, bytes.readInt32LE(Math.min(at + 4, bytes.length - 4)))),
    );
    for (let word = at; word < end; word += 4) found.push(word);
  }
  return found;
}

/** Every column that is an array, then the activations as training reads them. */
async function readAll(path: string): Promise<void> {
  const file = await openArrow(path);
  try {
    const reads = file.columns.map(({ name, dtype }) => async () => {
      if (dtype === undefined) return;
      const { shape, read } = await file.array(name, true);
      const count = Math.min(
        shape.reduce((product, size) => product * size, 1),
        MOST_BYTES / 8,
      );
      await read(0, count, new Uint8Array(count * 8));
    });
    await all(...reads);
  } finally {
    await file.close();
  }
  await readSource(await openSource([path]));
}

export const arrow: FuzzFormat = { name: "arrow", samples, boundaries, read: readAll };
