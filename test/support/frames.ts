/** Rows in frames, as a program writes them into a pipe. */

import { MAGIC } from "../../src/data/row-frames.ts";
import { bytesOf } from "../../src/util/bytes.ts";

export function headerBytes(header: object): Buffer {
  const json = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(json.length);
  return Buffer.concat([MAGIC, size, json]);
}

export interface FrameParts {
  readonly values: ArrayBufferView;
  readonly tokens?: Int32Array;
  readonly mask?: Uint8Array;
}

/** `rows` and `bytes` are what the frame says. */
export function frameBytes(rows: number, { values, tokens, mask }: FrameParts, bytes?: number): Buffer {
  const parts = [tokens, mask, values].filter((part) => part !== undefined).map(bytesOf);
  const payload = Buffer.concat(parts);
  const head = Buffer.alloc(8);
  head.writeUInt32LE(rows);
  head.writeUInt32LE(bytes ?? payload.length, 4);
  return Buffer.concat([head, payload]);
}

export const END = Buffer.alloc(8);
