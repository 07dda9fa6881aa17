/**
 * Checksums of HDF5's newer structures (Jenkins' lookup3, http://burtleburtle.net/bob/c/lookup3.c, `hashlittle`), made right again after a mutation. Where they stand is found
 * in the valid file: each structure begins with a signature and ends where the checksum of what came before is found.
 */

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

const rotate = (x: number, by: number): number => (x << by) | (x >>> (32 - by));

export function lookup3(bytes: Uint8Array): number {
  let [a, b, c] = Array(3).fill((0xdeadbeef + bytes.length) | 0) as [number, number, number];
  const word = (at: number): number => {
    let value = 0;
    for (let i = 3; i >= 0; i--) value = (value << 8) | (bytes[at + i] ?? 0);
    return value;
  };
  let at = 0;
  for (; bytes.length - at > 12; at += 12) {
    a = (a + word(at)) | 0;
    b = (b + word(at + 4)) | 0;
    c = (c + word(at + 8)) | 0;
    a = ((a - c) ^ rotate(c, 4)) | 0;
    c = (c + b) | 0;
    b = ((b - a) ^ rotate(a, 6)) | 0;
    a = (a + c) | 0;
    c = ((c - b) ^ rotate(b, 8)) | 0;
    b = (b + a) | 0;
    a = ((a - c) ^ rotate(c, 16)) | 0;
    c = (c + b) | 0;
    b = ((b - a) ^ rotate(a, 19)) | 0;
    a = (a + c) | 0;
    c = ((c - b) ^ rotate(b, 4)) | 0;
    b = (b + a) | 0;
  }
  if (bytes.length === at) return c >>> 0;
  a = (a + word(at)) | 0;
  b = (b + word(at + 4)) | 0;
  c = (c + word(at + 8)) | 0;
  c = ((c ^ b) - rotate(b, 14)) | 0;
  a = ((a ^ c) - rotate(c, 11)) | 0;
  b = ((b ^ a) - rotate(a, 25)) | 0;
  c = ((c ^ b) - rotate(b, 16)) | 0;
  a = ((a ^ c) - rotate(c, 4)) | 0;
  b = ((b ^ a) - rotate(a, 14)) | 0;
  c = ((c ^ b) - rotate(b, 24)) | 0;
  return c >>> 0;
}
