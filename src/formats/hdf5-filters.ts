/** The filter pipeline message of HDF5 (format specification, IV.A.2.l): what chunks were put through before they were stored. */

/** What the library is built with, by the numbers that HDF5 registers. */
const KNOWN: readonly number[] = [
  1, // deflate (gzip)
  2, // shuffle
  3, // fletcher32
  5, // n-bit
  6, // scale-offset
];

const NAMES: Readonly<Record<number, string>> = {
  4: "szip",
  307: "bzip2",
  32000: "lzf",
  32001: "blosc",
  32004: "lz4",
  32008: "bitshuffle",
  32013: "zfp",
  32015: "zstd",
  32026: "blosc2",
};

/** The first filter that cannot be undone here, by name; undefined when all can. "damaged": the message makes no sense. */
export function unknownFilter(message: Buffer): string | undefined {
  const [version, count] = message;
  if ((version !== 1 && version !== 2) || count === undefined || count > 32) return "damaged";
  let at = version === 1 ? 8 : 2;
  for (let i = 0; i < count; i++) {
    if (at + 2 > message.length) return "damaged";
    const id = message.readUInt16LE(at);
    // The second version leaves out the length of the names of HDF5's own filters, and all padding.
    const named = version === 1 || id >= 256;
    if (at + (named ? 8 : 6) > message.length) return "damaged";
    const nameBytes = named ? message.readUInt16LE(at + 2) : 0;
    const values = message.readUInt16LE(at + (named ? 6 : 4));
    const name = at + (named ? 8 : 6);
    const data = name + (version === 1 ? Math.ceil(nameBytes / 8) * 8 : nameBytes);
    if (!KNOWN.includes(id)) return NAMES[id] ?? `number ${id}`;
    at = data + 4 * values + (version === 1 && values % 2 === 1 ? 4 : 0);
  }
  return undefined;
}
