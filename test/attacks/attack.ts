/**
 * What the tests of hostile files share: a folder to write them to, and the one line that a reader
 * must refuse each with.
 */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect } from "vitest";
import { SaettaError } from "../../src/util/errors.ts";

const folder = mkdtempSync(join(tmpdir(), "saetta-attacks-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let written = 0;

/** Writes the file into a folder of its own. */
export function place(name: string, bytes: Uint8Array | string): string {
  const own = join(folder, String(++written));
  mkdirSync(own);
  writeFileSync(join(own, name), bytes);
  return join(own, name);
}

/**
 * The error of `read`, which must be of our family and name the file, without the path. Fails when
 * the file is read.
 */
export async function refusal(path: string, read: (path: string) => unknown): Promise<string> {
  const thrown = await Promise.resolve()
    .then(() => read(path))
    .then(
      () => undefined,
      (error: unknown) => error,
    );
  if (!(thrown instanceof SaettaError)) throw thrown ?? new Error(`${path} was read`);
  expect(thrown.message).toContain(path);
  expect(thrown.exitCode).toBe(1);
  return thrown.message.replaceAll(path, "FILE");
}
