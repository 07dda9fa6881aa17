/**
 * Not a format: it fails in every way that the fuzzer must see. Mutation n does what n asks for,
 * whatever the bytes.
 */

import { basename, dirname } from "node:path";
import { FormatError } from "../../../src/util/errors.ts";
import type { FuzzFormat } from "../format.ts";

const WAYS: readonly ((path: string) => void | Promise<void>)[] = [
  () => undefined,
  (path) => {
    throw new FormatError("as it must be", { where: path });
  },
  () => {
    throw new TypeError("raw");
  },
  () => {
    throw new FormatError("nameless");
  },
  (path) => {
    throw Object.assign(new FormatError("red"), { message: `${path}: \u001b[31mred` });
  },
  () => process.kill(process.pid, "SIGSEGV") as never,
  () => {
    for (;;);
  },
  () => {
    const before = process.cpuUsage();
    for (let used = before; used.user + used.system < 1.5e6; used = process.cpuUsage(before));
  },
  () => void Buffer.alloc(300 * 2 ** 20, 1),
  () => process.exit(3),
  async () => {
    void Promise.reject(new TypeError("nobody waits"));
    await new Promise((settle) => setTimeout(settle, 10));
  },
  () => undefined,
];

export const selfTest: FuzzFormat = {
  name: "self-test",
  samples: () => [{ name: "nothing", file: "file", bytes: Buffer.alloc(8) }],
  boundaries: () => [],
  read: async (path) => WAYS[Number(basename(dirname(path)))]?.(path),
};
