/**
 * HDF5: the fixtures of the oldest and the newest version of the format, with every layout, chunk
 * index and filter that is read.
 */

import { readdirSync, readFileSync } from "node:fs";
import { openSource } from "../../../src/data/open.ts";
import { isFloat } from "../../../src/formats/hdf5-datatype.ts";
import { openHdf5 } from "../../../src/formats/hdf5-read.ts";
import { BYTES } from "../../../src/util/bytes.ts";
import type { FuzzFormat, Sample } from "../format.ts";
import { resealHdf5 } from "../hdf5-checksums.ts";
import { all, MOST_BYTES, readSource } from "./read.ts";

const FIXTURES = "src/formats/fixtures";
const SIGNATURES =
  /\x89HDF|HEAP|TREE|SNOD|OHDR|OCHK|FRHP|FHDB|FHIB|FSHD|FSSE|BTHD|BTLF|BTIN|GCOL|FAHD|FADB|EAHD|EAIB|EASB|EADB|SMTB|SMLI/g;

function samples(): Sample[] {
  const names = readdirSync(FIXTURES).filter((name) => name.endsWith(".h5"));
  return names.map((name) => ({ name, file: name, bytes: readFileSync(`${FIXTURES}/${name}`) }));
}

/**
 * Every structure that has a signature and the fields after it; every message of an object header
 * of the old kind.
 */
function boundaries(bytes: Buffer): number[] {
  const found = new Set<number>([bytes.length - 1, bytes.length]);
  for (const { index } of bytes.toString("latin1").matchAll(SIGNATURES)) {
    for (let at = index; at < index + 96; at += at < index + 16 ? 1 : 4) found.add(at);
  }
  for (let at = 0; at + 8 <= bytes.length; at += 8) {
    const [type, size, flags] = [bytes.readUInt16LE(at), bytes.readUInt16LE(at + 2), bytes[at + 4]!];
    const message =
      type <= 0x17 && size > 0 && size % 8 === 0 && size <= 1024 && flags < 8 && bytes.readUIntLE(at + 5, 3) === 0;
    if (!message) continue;
    found.add(at).add(at + 2);
    for (let field = at + 8; field < Math.min(at + 8 + size, at + 40); field += 4) found.add(field);
  }
  return [...found].filter((at) => at <= bytes.length);
}

/** Reads all datasets through one opened file; then one of them as training does. */
async function readAll(path: string): Promise<void> {
  const file = await openHdf5(path);
  let rows = "";
  try {
    const usable = file.datasets.find(
      ({ dtype, problem, shape }) =>
        isFloat(dtype) && problem === undefined && (shape.length === 2 || shape.length === 3),
    );
    rows = usable?.name ?? "";
    const reads = file.datasets.map(({ name, shape, problem }) => async () => {
      if (problem !== undefined || shape.length === 0 || shape.length > 3) return;
      const rows = file.rows(name, shape.length === 3 ? 2 : 1);
      const rowBytes = rows.width * BYTES[rows.dtype];
      const count = Math.min(rows.rows, 64, Math.floor(MOST_BYTES / rowBytes));
      if (count > 0) await rows.read(0, count, new Uint8Array(count * rowBytes));
      if (count > 0) await rows.read(rows.rows - count, count, new Uint8Array(count * rowBytes));
    });
    await all(...reads);
  } finally {
    await file.close();
  }
  await readSource(await openSource([path], { dataset: rows }));
}

export const hdf5: FuzzFormat = {
  name: "hdf5",
  samples,
  boundaries,
  resealed: resealHdf5,
  read: readAll,
};
