/**
 * Checksums of HDF5's newer structures, made right again after a mutation. Where they stand is
 * found in the valid file: each structure begins with a signature and ends where the checksum of
 * what came before is found.
 */

import { lookup3 } from "../../src/formats/hdf5-checksum.ts";

const SIGNATURES = /\x89HDF|OHDR|OCHK|FRHP|FHDB|FHIB|BTHD|BTLF|BTIN|FAHD|FADB|EAHD|EAIB|EASB|EADB/g;
const MAX_BYTES = 4096;

const found = new WeakMap<Buffer, readonly (readonly [number, number])[]>();

/** Overwrites, in `mutated`, the checksum of every structure of `sample`. */
export function resealHdf5(sample: Buffer, mutated: Buffer): void {
  let places = found.get(sample);
  if (places === undefined) {
    places = placesOf(sample);
    found.set(sample, places);
  }
  for (const [from, to] of places) mutated.writeUInt32LE(lookup3(mutated.subarray(from, to)), to);
}

/** [first byte, byte of the checksum] of each structure. */
function placesOf(bytes: Buffer): [number, number][] {
  return Array.from(bytes.toString("latin1").matchAll(SIGNATURES)).flatMap(({ index }): [number, number][] => {
    for (let to = index + 4; to + 4 <= Math.min(bytes.length, index + MAX_BYTES); to++) {
      if (bytes.readUInt32LE(to) === lookup3(bytes.subarray(index, to))) return [[index, to]];
    }
    return [];
  });
}
