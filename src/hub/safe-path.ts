/** Names that a server gives and that become names on this disk. */

const LONGEST_PART = 255;
const LONGEST = 2000;
// biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
const UNSAFE = /[\u0000-\u001f\u007f\\]/;

/**
 * Whether a relative path with "/" between its parts stays below the folder that it is put in, on
 * this system and on others that read the same cache: no "..", no absolute path, no drive, no
 * backslash, no control characters.
 */
export function isSafePath(path: string): boolean {
  if (path.length > LONGEST || UNSAFE.test(path) || /^[A-Za-z]:/.test(path)) return false;
  return path.split("/").every((part) => {
    const bytes = Buffer.byteLength(part);
    return bytes > 0 && bytes <= LONGEST_PART && part !== "." && part !== "..";
  });
}

/** Whether an ETag may be the name of a file: it is a hash in practice. */
export function isSafeEtag(etag: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{3,199}$/.test(etag) && !/\.(incomplete|lock)$/.test(etag);
}

export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}
