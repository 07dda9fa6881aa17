/**
 * CRC-32C (Castagnoli's polynomial, reflected: 0x82f63b78), as TFRecord files use it. Source: RFC
 * 3720, appendix B.4.
 */

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let rest = byte;
  for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ 0x82f63b78 : rest >>> 1;
  return rest;
});

export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffff_ffff) >>> 0;
}

/**
 * Rotated right by 15 bits, plus a constant: so that the checksum of data that holds checksums is
 * not a special one. Source: tensorflow/core/lib/hash/crc32c.h.
 */
export function maskedCrc32c(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}
